"""Where downloads and generated data are kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder that TRUNKLINE_CACHE names, else ~/.cache/trunkline."""
    return Path(os.environ.get("TRUNKLINE_CACHE") or Path.home() / ".cache" / "trunkline")

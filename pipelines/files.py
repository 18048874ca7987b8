"""Files that a command is asked to write."""

from pathlib import Path

from .recipe import RecipeError


def new_file(out: str | Path) -> Path:
    """The path of a file to be written, whose folder is there. Raises RecipeError where something stands there already."""
    path = Path(out)
    if path.exists() or path.is_symlink():
        raise RecipeError(
            f"out={out}: is there already; nothing is written over: choose another name, or remove it first"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # what cannot be written is told before the work
        path.unlink()
    except OSError as error:
        raise RecipeError(f"out={out}: cannot be written ({error.strerror}); choose another place") from None
    return path

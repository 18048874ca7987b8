"""Weights of super-resolution in the form that other programs read."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trunkline.ground.errors import RecipeError
from trunkline.ground.storage import at_home


@dataclass
class Converted:
    """What was written: the file, the network, its scale and its number of tensors."""

    out: str
    arch: str
    scale: int
    tensors: int
    source: str = ""  # what was read, and of a run that has not ended, which checkpoint

    def to_json(self) -> dict[str, Any]:
        """Return every field as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.out}: {self.tensors} tensors of {self.arch} x{self.scale}, under params_ema, from {self.source}"


def weights(source: str | Path, *, out: str | Path, weights_key: str = "") -> Converted:
    """Write a run's or a file's network of super-resolution as a .pth with `params_ema`, as BasicSR's tools and spandrel read it.

    out          a new file that ends in .pth
    weights_key  which network of a file that holds several
    """
    file = Path(at_home(out))
    if file.suffix != ".pth":
        raise RecipeError(
            f"out={out}: expected a file that ends in .pth; a run's own weights.safetensors is flat already"
        )
    if file.exists():
        raise RecipeError(f"out={out}: is there already; choose another name")
    from ...backbones.saving import save_pth
    from ...backbones.table import SUPER_RESOLUTION
    from ..models.opened import weights_of

    found = weights_of(at_home(source), key=weights_key)
    if found is None:
        raise RecipeError(f"{source}: is no weights; give a run's folder or a file")
    if found.arch not in SUPER_RESOLUTION:
        raise RecipeError(
            f"{source}: holds {found.arch}; networks of super-resolution are written so ({', '.join(SUPER_RESOLUTION)})"
        )
    if not found.rest:
        raise RecipeError(
            f"{source}: holds the trunk of {found.arch} without its tail; give a file of the whole network"
        )
    tensors = {**found.tensors, **found.rest}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_pth(file, tensors)
    return Converted(str(file), found.arch, int(found.info["trunkline_scale"]), len(tensors), found.source)

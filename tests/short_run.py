"""The smallest run: what several tests ask of it."""

from pathlib import Path

PLAIN = ["machine.threads=1", "machine.loaders=0", "machine.precision=fp32", "log.tensorboard=false"]
SHORT = ["weights=none", "backbone=narrow", "size=32", "batch=8", "updates=2", *PLAIN]


def photos(data: Path, split: str = "train") -> list[Path]:
    """The pictures of a split, in order."""
    return sorted((data / split).rglob("*.jpg"))

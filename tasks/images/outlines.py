"""Outlines of the generated scenes' classes and of their clutter, as polygons."""

import math

import numpy as np

CLASSES = (
    "circle", "square", "triangle", "star", "ring", "cross", "heart", "arrow", "crescent", "flower", "bolt", "drop",
)  # fmt: skip


def outline(name: str, rng: np.random.Generator) -> np.ndarray:
    """Draw the outline of a class: `(P, 2)` float64 around the origin, y down, at most 1 from it.

    Its proportions vary a little from draw to draw.
    """
    points = _SHAPES[name](rng)
    points = points * np.array([rng.uniform(0.88, 1.0), 1.0])
    return points / np.linalg.norm(points, axis=1).max()


def blob(rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth irregular patch, centred somewhere in the unit square: `(P, 2)` float64."""
    t = _turn(48)
    radius = 1 + sum(rng.uniform(-0.3, 0.3) / n * np.cos(n * t + rng.uniform(0, 2 * math.pi)) for n in range(1, 5))
    return _polar(radius * rng.uniform(0.08, 0.32), t) * np.array([1.0, rng.uniform(0.4, 1.0)]) + rng.uniform(0, 1, 2)


def stick(rng: np.random.Generator) -> np.ndarray:
    """Draw a thin straight bar, centred somewhere in the unit square: `(4, 2)` float64."""
    half, width, angle = rng.uniform(0.1, 0.4), rng.uniform(0.006, 0.02), rng.uniform(0, math.pi)
    along, across = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    corners = [half * along + width * across, half * along - width * across]
    return np.array([*corners, -corners[0], -corners[1]]) + rng.uniform(0, 1, 2)


def _turn(points: int) -> np.ndarray:
    return np.arange(points) * (2 * math.pi / points)


def _polar(radius: float | np.ndarray, angle: np.ndarray) -> np.ndarray:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _regular(corners: int) -> np.ndarray:
    return _polar(1.0, _turn(corners))


def _star(rng: np.random.Generator) -> np.ndarray:
    return _polar(np.tile([1.0, rng.uniform(0.38, 0.44)], 5), _turn(10) - math.pi / 2)


def _ring(rng: np.random.Generator) -> np.ndarray:
    circle = np.concatenate([_regular(64), [[1.0, 0.0]]])  # closed, so that the seam to the hole runs along one line
    return np.concatenate([circle, circle[::-1] * rng.uniform(0.5, 0.65)])


def _cross(rng: np.random.Generator) -> np.ndarray:
    w = rng.uniform(0.26, 0.36)
    arm = np.array([[1.0, -w], [1.0, w], [w, w]])
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([arm @ np.linalg.matrix_power(quarter, n) for n in range(4)])


def _heart(rng: np.random.Generator) -> np.ndarray:
    t = _turn(64)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y + 2], axis=1)


def _arrow(rng: np.random.Generator) -> np.ndarray:
    neck, shaft, head = rng.uniform(0.0, 0.2), rng.uniform(0.16, 0.26), rng.uniform(0.6, 0.75)
    upper = np.array([[-1.0, -shaft], [neck, -shaft], [neck, -head]])
    return np.concatenate([upper, [[1.0, 0.0]], (upper * [1.0, -1.0])[::-1]])


def _crescent(rng: np.random.Generator) -> np.ndarray:
    tip, shift = rng.uniform(0.7, 0.9), rng.uniform(0.35, 0.5)  # the inner circle meets the outer one at +-tip
    outer = _polar(1.0, np.linspace(tip, 2 * math.pi - tip, 48))
    centre = np.array([shift, 0.0])
    radius = float(np.linalg.norm(outer[0] - centre))
    start = math.atan2(outer[0][1], outer[0][0] - shift)
    inner = _polar(radius, np.linspace(start, 2 * math.pi - start, 48)) + centre
    return np.concatenate([outer, inner[::-1][1:-1]]) + np.array([0.15, 0.0])


def _flower(rng: np.random.Generator) -> np.ndarray:
    t = _turn(96)
    return _polar(1 + rng.uniform(0.2, 0.3) * np.cos(rng.integers(6, 8) * t), t)


def _bolt(rng: np.random.Generator) -> np.ndarray:
    bend = rng.uniform(0.1, 0.2)
    half = np.array([[0.35, -1.0], [-0.5, bend], [-0.05, bend]])
    return np.concatenate([half, -half])


def _drop(rng: np.random.Generator) -> np.ndarray:
    t, power = _turn(64), rng.uniform(1.3, 1.8)
    return np.stack([np.sin(t) * np.sin(t / 2) ** power, -np.cos(t)], axis=1)


_SHAPES = {
    "circle": lambda rng: _regular(64),
    "square": lambda rng: _polar(1.0, _turn(4) + math.pi / 4),
    "triangle": lambda rng: _polar(1.0, _turn(3) - math.pi / 2),
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "heart": _heart,
    "arrow": _arrow,
    "crescent": _crescent,
    "flower": _flower,
    "bolt": _bolt,
    "drop": _drop,
}

"""Densities in the plane that show what a flow can bend and what it cannot tear."""

import math
from collections.abc import Callable

import numpy as np

from waveflow.errors import InputError

Generator = np.random.Generator


def moons(rng: Generator, rows: int) -> np.ndarray:
    """Two interlocked half circles of radius 1, noise 0.1."""
    angle = rng.uniform(0, math.pi, rows)
    lower = rng.random(rows) < 0.5
    x = np.where(lower, 1 - np.cos(angle), np.cos(angle))
    y = np.where(lower, 0.5 - np.sin(angle), np.sin(angle))
    return np.stack([x, y], 1) + rng.normal(0, 0.1, (rows, 2))


def rings(rng: Generator, rows: int) -> np.ndarray:
    """Four rings of radius 0.5, 1, 1.5 and 2, equally likely, noise 0.08."""
    radius, angle = 0.5 * rng.integers(1, 5, rows), rng.uniform(0, 2 * math.pi, rows)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1) + rng.normal(0, 0.08, (rows, 2))


def checkerboard(rng: Generator, rows: int) -> np.ndarray:
    """The eight dark squares of a 4 x 4 board over [-2, 2) x [-2, 2), uniform: a density of 1/8 on them."""
    column, place = rng.integers(0, 4, rows), rng.integers(0, 2, rows)
    corner = np.stack([column, 2 * place + column % 2], 1) - 2.0
    return corner + rng.random((rows, 2))


def spirals(rng: Generator, rows: int) -> np.ndarray:
    """Two spirals of one and a half turns, noise 0.1."""
    turns = np.sqrt(rng.random(rows)) * 3 * math.pi
    side = rng.choice([-1.0, 1.0], rows)
    points = np.stack([-np.cos(turns) * turns, np.sin(turns) * turns], 1) * (side / 3)[:, None]
    return points + rng.normal(0, 0.1, (rows, 2))


def two_gaussians(rng: Generator, rows: int) -> np.ndarray:
    """Equal parts of N((-2, 0), 0.5^2) and N((2, 0), 0.5^2)."""
    side = rng.choice([-2.0, 2.0], rows)
    return np.stack([side, np.zeros(rows)], 1) + rng.normal(0, 0.5, (rows, 2))


def eight_gaussians(rng: Generator, rows: int) -> np.ndarray:
    """Equal parts of eight Gaussians on a circle of radius 2, of standard deviation 0.2."""
    angle = rng.integers(0, 8, rows) * (math.pi / 4)
    return 2 * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(0, 0.2, (rows, 2))


def pinwheel(rng: Generator, rows: int) -> np.ndarray:
    """Five arms, each a Gaussian stretched outwards and bent the more the farther out."""
    outward, across = rng.normal(1.0, 0.3, rows), rng.normal(0.0, 0.1, rows)
    angle = rng.integers(0, 5, rows) * (2 * math.pi / 5) + 0.25 * np.exp(outward)
    cos, sin = np.cos(angle), np.sin(angle)
    return 2 * np.stack([outward * cos - across * sin, outward * sin + across * cos], 1)


TOYS: dict[str, Callable[[Generator, int], np.ndarray]] = {
    "moons": moons,
    "rings": rings,
    "checkerboard": checkerboard,
    "spirals": spirals,
    "two-gaussians": two_gaussians,
    "eight-gaussians": eight_gaussians,
    "pinwheel": pinwheel,
}
"""Name -> function of a generator and a number of rows, to (rows, 2) float64."""


def sample_toy(name: str, rows: int, seed: int = 0) -> np.ndarray:
    """Draw from one of the :data:`TOYS`: (rows, 2), float64.

    Raises:
        InputError: for an unknown name, or fewer than one row.

    Example:
        >>> sample_toy("moons", 5).shape
        (5, 2)
    """
    if name not in TOYS:
        raise InputError(f"there is no toy {name!r}, expected one of {', '.join(TOYS)}")
    if rows < 1:
        raise InputError(f"sample_toy expects at least 1 row, got {rows}")
    return TOYS[name](np.random.default_rng(seed), rows)

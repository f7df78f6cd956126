"""Grids that show what a model of images has learnt."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from waveflow.data import Images
from waveflow.images import interpolate, save_grid, temperature_sweep
from waveflow.models import GatedPixelCNN, ImageFlow, ImageModel, PixelCNN

TEMPERATURES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

_SIDE = 56  # pixels that a small image is enlarged to, by whole factors
_PAIRS, _WAY = 6, 9
_COMPLETED, _COMPLETIONS = 6, 7


def draw(model: ImageModel, n: int, temperature: float, seed: int) -> Tensor:
    """n samples, uint8 (n, C, H, W), on the CPU; with classes, these take turns.

    Raises:
        FloatingPointError: if the model gives numbers that are not finite.
    """
    device = next(model.parameters()).device
    label = torch.arange(n) % model.config.classes if model.config.classes else None
    return model.sample(n, temperature, label, torch.Generator(device).manual_seed(seed)).cpu()


def grid_layout(model: ImageModel) -> dict[str, Any]:
    """How :func:`~waveflow.images.save_grid` shows images of the model: a column is of one class, if these are few."""
    c = model.config
    columns = c.classes * max(1, 10 // c.classes) if 0 < c.classes <= 16 else None
    return {"values": c.values, "columns": columns, "zoom": max(1, _SIDE // max(c.height, c.width)), "gap": 1}


def draw_samples(path: Path, model: ImageModel, n: int, temperature: float, seed: int) -> None:
    """A square of samples."""
    save_grid(path, draw(model, n, temperature, seed), **grid_layout(model))


def draw_temperatures(path: Path, model: ImageModel, seed: int, n: int = 10) -> None:
    """A row for each of :data:`TEMPERATURES`, all from the same noise."""
    label = torch.arange(n) % model.config.classes if model.config.classes else None
    _save_rows(path, model, temperature_sweep(model, TEMPERATURES, n, label, seed))


def draw_interpolations(path: Path, model: ImageFlow, images: Images) -> None:
    """From one image to another, in each row; the first and the last are given, and come back from their latents."""
    a, b, label = _pairs(images)
    _save_rows(path, model, interpolate(model, a, b, _WAY, label).transpose(0, 1))


def draw_completions(
    path: Path, model: PixelCNN | GatedPixelCNN, images: Images, temperature: float, seed: int
) -> None:
    """Images, and what the model makes of their upper halves."""
    device = next(model.parameters()).device
    chosen = torch.arange(min(_COMPLETED, len(images))) * len(images) // min(_COMPLETED, len(images))
    part = images.take(chosen)
    halves = part.images.repeat_interleave(_COMPLETIONS, 0)
    label = None if part.labels is None else part.labels.repeat_interleave(_COMPLETIONS)
    generator = torch.Generator(device).manual_seed(seed)
    completed = model.complete(halves, model.config.height // 2, temperature, label, generator).cpu()
    rows = torch.cat([part.images[:, None], completed.reshape(-1, _COMPLETIONS, *model.image_shape)], 1)
    _save_rows(path, model, rows)


def _save_rows(path: Path, model: ImageModel, rows: Tensor) -> None:
    """rows: (rows, columns, C, H, W)."""
    save_grid(path, rows.flatten(0, 1), **{**grid_layout(model), "columns": rows.shape[1]})


def _pairs(images: Images) -> tuple[Tensor, Tensor, Tensor | None]:
    """Two images for each row; of one class each, where there are labels."""
    if images.labels is None:
        places = torch.arange(2 * _PAIRS) * len(images) // (2 * _PAIRS)
        return images.images[places[:_PAIRS]], images.images[places[_PAIRS:]], None
    classes = [(images.labels == label).nonzero()[:, 0] for label in images.labels.unique()[:_PAIRS]]
    first, second = (torch.stack([places[i % len(places)] for places in classes]) for i in (0, 1))
    return images.images[first], images.images[second], images.labels[first]

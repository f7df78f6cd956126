"""The same noise at several temperatures: from the likeliest images to all of them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from waveflow.errors import InputError
from waveflow.images.latents import device_of


@runtime_checkable
class Sampler(Protocol):
    """A model that draws images, such as :class:`~waveflow.models.image_model.ImageModel`."""

    def sample(
        self,
        n: int,
        temperature: float = 1.0,
        label: Tensor | int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images uint8 (n, C, H, W)."""


def temperature_sweep(
    model: Sampler, temperatures: Sequence[float], n: int, label: Tensor | int | None = None, seed: int = 0
) -> Tensor:
    """Draw n images at each temperature from the same noise, so that a column of their grid shows one image change.

    Args:
        model: what draws.
        temperatures: at least one.
        n: images at each.
        label: of a model with classes: one for all, or int64 (n,).
        seed: of the noise.

    Returns:
        uint8 (temperatures, n, C, H, W), on the CPU.

    Raises:
        InputError: for no temperatures, fewer than one image, or what the model refuses.
    """
    if not len(temperatures) or n < 1:
        raise InputError(f"a temperature sweep expects at least one of each, got {len(temperatures)} and {n} images")
    device = device_of(model)
    rows = [model.sample(n, float(t), label, torch.Generator(device).manual_seed(seed)) for t in temperatures]
    return torch.stack(rows).cpu()

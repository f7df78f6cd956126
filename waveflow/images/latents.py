"""Images to latents and back, a batch at a time."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from waveflow.errors import InputError


@runtime_checkable
class LatentModel(Protocol):
    """A model that is a bijection of images, such as :class:`~waveflow.models.image_flow.ImageFlow`."""

    def encode(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Latents (B, ...) of images uint8 (B, C, H, W)."""

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images uint8 (B, C, H, W) of latents; those of ``encode(images)`` are the images."""


def require_latents(model: Any, purpose: str) -> None:
    """Refuse a model without latents.

    Raises:
        InputError: naming the model.
    """
    if not isinstance(model, LatentModel):
        raise InputError(f"{purpose} expects a flow, which has latents, got a {type(model).__name__}")


def device_of(model: Any) -> torch.device:
    """Where the model computes."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def labels_of(label: Tensor | int | None, images: int) -> Tensor | None:
    """A label for each image, int64 (N,), of one for all, one for each, or none.

    Raises:
        InputError: for a number that is none of int64.
    """
    if isinstance(label, int) and not -(2**63) <= label < 2**63:
        raise InputError(f"expected a label of at most 64 bits, got {label}")
    return torch.full((images,), label) if isinstance(label, int) else label


@torch.no_grad()
def encode(model: LatentModel, images: Tensor, label: Tensor | None, batch_size: int) -> Tensor:
    """Latents (N, ...) of images (N, C, H, W), on the device of the model.

    Raises:
        InputError: for a batch size below 1, or what the model refuses.
        FloatingPointError: for latents that are not finite.
    """
    z = _in_batches(model.encode, images, label, batch_size, device_of(model))
    if not z.isfinite().all():
        raise FloatingPointError(f"{type(model).__name__} encoded images to latents that are not finite")
    return z


@torch.no_grad()
def decode(model: LatentModel, z: Tensor, label: Tensor | None, batch_size: int) -> Tensor:
    """Images (N, C, H, W) of latents (N, ...), on the CPU.

    Raises:
        InputError: for a batch size below 1, or what the model refuses.
    """
    return _in_batches(model.decode, z, label, batch_size, device_of(model)).cpu()


def _in_batches(call, values: Tensor, label: Tensor | None, batch_size: int, device: torch.device) -> Tensor:
    if batch_size < 1:
        raise InputError(f"expected a batch size of at least 1, got {batch_size}")
    if label is None:
        return torch.cat([call(part.to(device)) for part in values.split(batch_size)])
    if tuple(label.shape) != (len(values),):  # batches would hide it from the model
        raise InputError(f"expected a label for each of {len(values)} images, got {tuple(label.shape)}")
    parts = zip(values.split(batch_size), label.split(batch_size), strict=True)
    return torch.cat([call(part.to(device), labels.to(device)) for part, labels in parts])

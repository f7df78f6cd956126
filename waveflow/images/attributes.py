"""A smile as a direction in latent space (Kingma & Dhariwal, 2018; arXiv:1807.03039, section 5)."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from waveflow.atomic import write_whole
from waveflow.errors import InputError
from waveflow.images.latents import LatentModel, decode, encode, labels_of, require_latents

_FORMAT = "waveflow attribute vector 1"


@dataclass(frozen=True, eq=False)
class AttributeVector:
    """What has to be added to a latent for its image to gain an attribute.

    Args:
        vector: of the shape of one latent: all levels of a multi-scale model.
        model: class of the model whose latents these are.
        fingerprint: of that model, see :func:`fingerprint`; in the latents of another the vector means nothing.
    """

    vector: Tensor
    model: str
    fingerprint: str

    def require(self, model: nn.Module) -> None:
        """Refuse any model but the one that the vector was made with.

        Raises:
            InputError: naming both.
        """
        found = fingerprint(model)
        if (self.model, self.fingerprint) != (type(model).__name__, found):
            raise InputError(
                f"the attribute vector was made with the {self.model} {self.fingerprint[:8]}, and means nothing to "
                f"the {type(model).__name__} {found[:8]}: make one with this model"
            )

    def save(self, path: str | os.PathLike) -> None:
        """Write it as safetensors, whole or not at all; equal vectors give equal bytes.

        Raises:
            OSError: naming the file, if it cannot be written.
        """
        about = {"format": _FORMAT, "model": self.model, "fingerprint": self.fingerprint}
        write_whole(path, safetensors.torch.save({"vector": self.vector.detach().cpu().contiguous()}, metadata=about))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: for a file of another kind, a truncated one, or numbers that are not finite.
            OSError: if it is not there or cannot be opened.
        """
        path = Path(path)
        with open(path, "rb"):  # what is missing or a folder is said as for any other file
            pass
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                vector = file.get_tensor("vector") if about.get("format") == _FORMAT else None
        except safetensors.SafetensorError as error:
            raise InputError(f"{path}: truncated or not a safetensors file ({error})") from None
        if vector is None or not {"model", "fingerprint"} <= about.keys():
            raise InputError(f"{path}: not an attribute vector, expected a file marked {_FORMAT!r}")
        if not vector.is_floating_point() or not vector.isfinite().all():
            raise InputError(f"{path}: holds values that are not finite numbers")
        return cls(vector, about["model"], about["fingerprint"])


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of a model's weights, wherever and in whatever precision they are: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        value = tensor.detach().cpu()
        value = value.float() if value.is_floating_point() else value.long()
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def attribute_vector(
    model: LatentModel,
    images: Tensor,
    has_attribute: Tensor,
    label: Tensor | int | None = None,
    batch_size: int = 64,
) -> AttributeVector:
    """The mean latent of images with an attribute minus the mean latent of images without it.

    Args:
        model: a flow of images.
        images: uint8 (N, C, H, W).
        has_attribute: (N,), bool, or integers 0 and 1.
        label: of a model with classes: one for all, or int64 (N,).
        batch_size: images that are encoded at a time.

    Raises:
        InputError: if there are only images with the attribute or only images without it, for anything but one mark for
            each image, a model without latents, or what it refuses.
        FloatingPointError: for latents that are not finite.
    """
    require_latents(model, "an attribute vector")
    has = _marks(has_attribute, len(images))
    if has.all() or not has.any():
        raise InputError(
            f"an attribute vector expects images with the attribute and images without it, got {int(has.sum())} of "
            f"{len(has)} with it"
        )
    label = labels_of(label, len(images))
    sums, counts = {}, {}
    for group in (True, False):
        chosen = (has == group).nonzero()[:, 0]
        for part in chosen.split(max(1, batch_size)):
            z = encode(model, images[part], None if label is None else label[part], batch_size)
            sums[group] = sums.get(group, 0) + z.double().sum(0)
        counts[group] = len(chosen)
    difference = sums[True] / counts[True] - sums[False] / counts[False]
    return AttributeVector(difference.float().cpu(), type(model).__name__, fingerprint(model))


def manipulate(
    model: LatentModel,
    images: Tensor,
    vector: AttributeVector,
    strength: float | Sequence[float] = 1.0,
    label: Tensor | int | None = None,
    batch_size: int = 64,
) -> Tensor:
    """Give images an attribute, or take it away.

    Args:
        model: the flow that the vector was made with.
        images: uint8 (B, C, H, W).
        vector: what :func:`attribute_vector` made.
        strength: how often the vector is added: 1 goes from one mean to the other, 0 leaves images as they are,
            negative numbers take the attribute away. Several give the images at each.
        label: of a model with classes: one for all, or int64 (B,).
        batch_size: images that are decoded at a time.

    Returns:
        uint8 (B, C, H, W), or (strengths, B, C, H, W) for several.

    Raises:
        InputError: for a vector of another model, a strength that is not finite, a model without latents, or what it
            refuses.
        FloatingPointError: for latents or pixels that are not finite. (A strength that is merely too large gives an
            image of noise in the brightest and the darkest value.)
    """
    require_latents(model, "editing")
    vector.require(model)
    strengths = torch.as_tensor(strength, dtype=torch.float64)
    if strengths.ndim > 1 or not strengths.numel() or not strengths.isfinite().all():
        raise InputError(f"editing expects one or several strengths, finite numbers, got {strength}")
    label = labels_of(label, len(images))
    z = encode(model, images, label, batch_size)
    direction = vector.vector.to(z)
    if direction.shape != z.shape[1:]:
        raise InputError(f"editing expects a vector {tuple(z.shape[1:])}, got {tuple(direction.shape)}")
    moved = torch.cat([z + s * direction for s in strengths.reshape(-1).tolist()])
    labels = None if label is None else label.repeat(strengths.numel())
    edited = decode(model, moved, labels, batch_size)
    return edited.reshape(*strengths.shape, *images.shape)


def _marks(has_attribute: Tensor, images: int) -> Tensor:
    marks = torch.as_tensor(has_attribute)
    if tuple(marks.shape) != (images,):
        raise InputError(f"an attribute vector expects a mark for each of {images} images, got {tuple(marks.shape)}")
    if marks.is_floating_point() or not ((marks == 0) | (marks == 1)).all():
        raise InputError("an attribute vector expects marks that are bool, or integers 0 and 1")
    return marks.bool().cpu()

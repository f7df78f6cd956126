"""The face of every model of images: uint8 in, nats out, and samples that are uint8 again."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from waveflow.distributions.bits import bits_per_dim
from waveflow.errors import InputError
from waveflow.models.pretrained import PretrainedModel


@dataclass(frozen=True)
class ImageModelConfig:
    """What every model of images is told.

    Args:
        channels: C, 1 for grey, 3 for colour.
        height: H.
        width: W.
        values: number of values that a pixel can have: 256, or 2 for binary images.
        classes: number of classes that images are labelled with; 0 for no labels.

    Raises:
        InputError: for a size below 1, values outside 2 ... 256, or a negative number of classes.
    """

    channels: int = 1
    height: int = 28
    width: int = 28
    values: int = 256
    classes: int = 0

    def __post_init__(self):
        for name in ("channels", "height", "width"):
            if getattr(self, name) < 1:
                raise InputError(f"{self._model} expects {name} of at least 1, got {getattr(self, name)}")
        if not 2 <= self.values <= 256:
            raise InputError(f"{self._model} expects 2 to 256 values of a pixel, got {self.values}")
        if self.classes < 0:
            raise InputError(f"{self._model} expects classes of at least 0, got {self.classes}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, self.height, self.width)

    @property
    def _model(self) -> str:
        return type(self).__name__.removesuffix("Config")

    def _require_levels(self, levels: int) -> None:
        """Refuse sizes that cannot be halved once per level."""
        if levels < 1:
            raise InputError(f"{self._model} expects levels of at least 1, got {levels}")
        if self.height % 2**levels or self.width % 2**levels:
            raise InputError(
                f"{self._model} expects height and width divisible by {2**levels} for {levels} levels, "
                f"got {self.height}x{self.width}"
            )

    def _require_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            expected = " or ".join(f'"{choice}"' for choice in choices)
            raise InputError(f"{self._model} expects {name} {expected}, got {getattr(self, name)!r}")


class ImageModel(PretrainedModel):
    """A model of images (B, C, H, W), uint8, with pixels 0 ... values - 1, and of their labels' meaning if it has any.

    Labels are int64 (B,), 0 ... classes - 1. A model with classes needs them in every call, one without refuses them.
    The networks see them one-hot, as a float context (B, classes).

    A subclass names a ``Config`` that derives from :class:`ImageModelConfig` and writes ``_log_prob(images, context,
    generator)`` and ``_sample(n, context, temperature, generator)``. ``forward`` is :meth:`log_prob` (what DDP wraps).

    Attributes:
        exact: whether ``log_prob`` is the log-probability; otherwise it is a lower bound on it, which depends on noise.

    Raises:
        InputError: (all methods) for images of another type, size or range, and labels that do not fit.
    """

    config: ImageModelConfig
    exact: bool = True

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.config.image_shape

    def forward(self, images: Tensor, label: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        return self.log_prob(images, label, generator)

    def log_prob(self, images: Tensor, label: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Log-probability of images in nats, or a bound on it, see ``exact``.

        Args:
            images: uint8 (B, C, H, W).
            label: int64 (B,) for a model with classes.
            generator: of the noise that a bound is estimated with.

        Returns:
            (B,), float32 or wider.
        """
        self._check_images(images, "log_prob")
        return self._log_prob(images, self._context(label, len(images), "log_prob"), generator)

    def bits_per_dim(
        self, images: Tensor, label: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Minus the log-probability in bits per channel of a pixel, (B,); an upper bound where that is a lower one."""
        return bits_per_dim(self.log_prob(images, label, generator), math.prod(self.image_shape))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        temperature: float = 1.0,
        label: Tensor | int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw images.

        Args:
            n: how many.
            temperature: below 1 for more likely, less diverse images.
            label: int64 (n,), or one class for all, for a model with classes.
            generator: of the draw.

        Returns:
            uint8 (n, C, H, W).

        Raises:
            InputError: for a negative number or temperature, and labels that do not fit.
            FloatingPointError: if the model gives numbers that are not finite.
        """
        name = type(self).__name__
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise InputError(f"{name}.sample expects a number of images n of at least 0, got {n!r}")
        if not 0 <= temperature < math.inf:
            raise InputError(f"{name}.sample expects a temperature of at least 0, got {temperature}")
        return self._sample(n, self._context(self._for_all(label, n, "sample"), n, "sample"), temperature, generator)

    def _log_prob(self, images: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Tensor:
        raise NotImplementedError

    def _sample(self, n: int, context: Tensor | None, temperature: float, generator: torch.Generator | None) -> Tensor:
        raise NotImplementedError

    def _check_images(self, images: Any, method: str) -> None:
        values, call = self.config.values, f"{type(self).__name__}.{method}"
        if not isinstance(images, Tensor):
            raise InputError(f"{call} expects a torch tensor of images, got {type(images).__name__}")
        if images.dtype != torch.uint8:
            advice = (
                f"; floats in [0, 1] become pixels by (images * {values - 1}).round().to(torch.uint8)"
                if images.is_floating_point()
                else "; convert by images.to(torch.uint8)"
            )
            raise InputError(f"{call} expects uint8 images with pixels 0 ... {values - 1}, got {images.dtype}{advice}")
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            c, h, w = self.image_shape
            raise InputError(f"{call} expects images (B, {c}, {h}, {w}), got {tuple(images.shape)}")
        if values < 256 and images.numel() and images.max() >= values:
            raise InputError(f"{call} expects pixels 0 ... {values - 1}, got one of {images.max()}")

    def _context(self, label: Any, batch: int, method: str) -> Tensor | None:
        """Labels one-hot, (B, classes), in the type and on the device of the parameters."""
        classes, call = self.config.classes, f"{type(self).__name__}.{method}"
        if not classes:
            if label is not None:
                raise InputError(f"{call} expects no label, since the model has no classes, got one")
            return None
        expected = f"{call} expects a label 0 ... {classes - 1} for each of {batch} images"
        if label is None:
            raise InputError(f"{expected}, got None")
        if not isinstance(label, Tensor):
            raise InputError(f"{expected} as a torch tensor, got {type(label).__name__}")
        if label.is_floating_point() or label.dtype == torch.bool or tuple(label.shape) != (batch,):
            raise InputError(f"{expected} as int64 ({batch},), got {label.dtype} {tuple(label.shape)}")
        if batch and not (label.min() >= 0 and label.max() < classes):
            raise InputError(f"{expected}, got labels from {label.min()} to {label.max()}")
        like = self._like()
        return F.one_hot(label.long(), classes).to(like.device, like.dtype)

    def _for_all(self, label: Any, batch: int, method: str) -> Any:
        """One class for all images as labels (batch,); anything else as it is."""
        classes = self.config.classes
        if not classes or not isinstance(label, int) or isinstance(label, bool):
            return label
        if not 0 <= label < classes:
            raise InputError(f"{type(self).__name__}.{method} expects a label 0 ... {classes - 1}, got {label}")
        return torch.full((batch,), label)

    def _like(self) -> Tensor:
        """A tensor of the type and on the device that the networks compute in."""
        return next(self.parameters(), torch.empty(0))

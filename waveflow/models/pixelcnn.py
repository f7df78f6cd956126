"""PixelCNN (van den Oord et al., 2016; arXiv:1601.06759) and Gated PixelCNN (2016; arXiv:1606.05328)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from waveflow.bijectors.solvers import Solver
from waveflow.distributions import (
    AutoregressiveDistribution,
    Bernoulli,
    Categorical,
    DiscretisedMixtureOfLogistics,
    Head,
)
from waveflow.errors import InputError
from waveflow.models.image_model import ImageModel, ImageModelConfig
from waveflow.networks import GatedPixelCNNStack, PixelCNNStack


@dataclass(frozen=True)
class PixelCNNConfig(ImageModelConfig):
    """What a PixelCNN is made of; further fields as in :class:`ImageModelConfig`.

    Args:
        hidden: channels of the network's stream (the papers' 2h).
        layers: residual blocks, or gated layers.
        kernel: side of their convolutions, odd.
        first_kernel: side of the first convolution, odd.
        head: distribution of a pixel: ``"categorical"`` (a logit for each value), ``"bernoulli"`` (two values only) or
            ``"logistics"`` (a mixture, see :class:`~waveflow.distributions.DiscretisedMixtureOfLogistics`); None for
            Bernoulli where there are two values and categorical otherwise.
        components: of the mixture.

    Raises:
        InputError: for sizes that are too small, even kernels, another head, or one that does not fit ``values``.
    """

    hidden: int = 64
    layers: int = 7
    kernel: int = 3
    first_kernel: int = 7
    head: Literal["categorical", "bernoulli", "logistics"] | None = None
    components: int = 10

    def __post_init__(self):
        super().__post_init__()
        if self.head is None:
            object.__setattr__(self, "head", "bernoulli" if self.values == 2 else "categorical")
        self._require_choice("head", ("categorical", "bernoulli", "logistics"))
        if self.head == "bernoulli" and self.values != 2:
            raise InputError(f'{self._model} expects 2 values with the head "bernoulli", got {self.values}')
        for name, least in {"hidden": 2 * self.channels, "layers": 1, "components": 1}.items():
            if getattr(self, name) < least:
                raise InputError(f"{self._model} expects {name} of at least {least}, got {getattr(self, name)}")
        for name in ("kernel", "first_kernel"):
            if getattr(self, name) < 3 or getattr(self, name) % 2 == 0:
                raise InputError(f"{self._model} expects {name} odd and at least 3, got {getattr(self, name)}")


@dataclass(frozen=True)
class GatedPixelCNNConfig(PixelCNNConfig):
    """What a Gated PixelCNN is made of: the fields of :class:`PixelCNNConfig`."""


class _PixelModel(ImageModel):
    """A masked network and a head: the exact probability of an image, number by number.

    Attributes:
        distribution: the :class:`~waveflow.distributions.AutoregressiveDistribution` of images as whole numbers.
    """

    Network: ClassVar[type[nn.Module]]

    def build(self) -> None:
        c, head = self.config, _head(self.config)
        network = self.Network(c.image_shape, head.params, c.hidden, c.layers, c.kernel, c.first_kernel, c.classes)
        self.distribution = AutoregressiveDistribution(network, head, c.image_shape)

    @property
    def solver(self) -> Solver:
        """What samples: ``"sequential"`` (number by number, only new work in each step), ``"jacobi"`` or ``"auto"``."""
        return self.distribution.solver

    @solver.setter
    def solver(self, solver: str | Solver) -> None:
        self.distribution.solver = solver

    @torch.no_grad()
    def complete(
        self,
        images: Tensor,
        rows: int,
        temperature: float = 1.0,
        label: Tensor | int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Keep the upper rows of images and draw what is below them.

        Args:
            images: uint8 (B, C, H, W); what is below is not looked at.
            rows: how many rows are kept, 0 ... H.
            temperature: as of :meth:`sample`.
            label: as of :meth:`sample`.
            generator: of the draw.

        Returns:
            uint8 (B, C, H, W).

        Raises:
            InputError: for images, rows, a temperature or labels that do not fit.
            FloatingPointError: if the model gives numbers that are not finite.
        """
        call, (channels, height, width) = f"{type(self).__name__}.complete", self.image_shape
        self._check_images(images, "complete")
        if isinstance(rows, bool) or not isinstance(rows, int) or not 0 <= rows <= height:
            raise InputError(f"{call} expects 0 ... {height} rows to keep, got {rows!r}")
        context = self._context(self._for_all(label, len(images), "complete"), len(images), "complete")
        given = images.to(self._like().device)
        return self._draw(len(images), context, temperature, generator, given, channels * width * rows)

    def _log_prob(self, images: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Tensor:
        return self.distribution.log_prob(images, context)

    def _sample(self, n: int, context: Tensor | None, temperature: float, generator: torch.Generator | None) -> Tensor:
        return self._draw(n, context, temperature, generator)

    def _draw(self, n, context, temperature, generator, given: Tensor | None = None, known: int = 0) -> Tensor:
        shape = (n,) if context is None else ()
        x = self.distribution.sample(shape, context, temperature, generator, given=given, known=known)
        return x.to(torch.uint8)


class PixelCNN(_PixelModel):
    """Stacked masked convolutions: every pixel follows from those above it and to the left, but for a blind spot.

    Constructed with the fields of :class:`PixelCNNConfig` as keywords.

    Example:
        >>> model = PixelCNN.from_preset("digits", classes=10)
        >>> images, label = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([3, 9])
        >>> model.bits_per_dim(images, label).tolist()  # log2(17): a new model takes all values for equally probable
        [4.08746..., 4.08746...]
        >>> model.complete(images, rows=4, label=label).shape
        torch.Size([2, 1, 8, 8])
    """

    Config = PixelCNNConfig
    Network = PixelCNNStack
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mnist": {},
        "mnist-binary": {"values": 2},
        "cifar10": {"channels": 3, "height": 32, "width": 32, "hidden": 256, "layers": 15},
        "cifar10-small": {"channels": 3, "height": 32, "width": 32, "hidden": 96, "layers": 6, "head": "logistics"},
        "digits": {"height": 8, "width": 8, "values": 17, "hidden": 32, "layers": 4, "first_kernel": 5},
    }


class GatedPixelCNN(_PixelModel):
    """Two stacks, rows above and what is left, joined by gates: every pixel follows from all before it.

    Constructed with the fields of :class:`GatedPixelCNNConfig` as keywords.

    Example:
        >>> model = GatedPixelCNN.from_preset("mnist-binary", hidden=8, layers=2)
        >>> round(model.bits_per_dim(torch.ones(1, 1, 28, 28, dtype=torch.uint8)).item(), 4)
        1.0
        >>> model.solver = "jacobi"
        >>> model.sample(2).shape
        torch.Size([2, 1, 28, 28])
    """

    Config = GatedPixelCNNConfig
    Network = GatedPixelCNNStack
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mnist": {},
        "mnist-binary": {"values": 2},
        "cifar10": {"channels": 3, "height": 32, "width": 32, "hidden": 128, "layers": 15, "kernel": 5},
        "cifar10-small": {"channels": 3, "height": 32, "width": 32, "hidden": 48, "layers": 6, "head": "logistics"},
        "digits": {"height": 8, "width": 8, "values": 17, "hidden": 24, "layers": 4, "first_kernel": 5},
    }


def _head(config: PixelCNNConfig) -> Head:
    if config.head == "bernoulli":
        return Bernoulli()
    if config.head == "categorical":
        return Categorical(config.values)
    return DiscretisedMixtureOfLogistics(config.components, config.values)

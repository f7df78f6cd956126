"""What models of images that are flows share: dequantisation, latents, and samples that are rounded down."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from waveflow.bijectors import Bijector
from waveflow.distributions import Base, Flow, StandardNormal
from waveflow.distributions.dequantise import UniformDequantisation, VariationalDequantisation, to_unit_interval
from waveflow.errors import InputError
from waveflow.models.image_model import ImageModel, ImageModelConfig


@dataclass(frozen=True)
class ImageFlowConfig(ImageModelConfig):
    """What every flow of images is told; further fields as in :class:`ImageModelConfig`.

    Args:
        dequantisation: ``"uniform"`` or ``"variational"``, see :mod:`waveflow.distributions.dequantise`.
        dequantisation_hidden: width of the networks of ``"variational"``.
        memory: ``"store"`` or ``"invert"``, see :class:`~waveflow.bijectors.Chain`.

    Raises:
        InputError: for any other choice, or images of odd width with ``"variational"``.
    """

    dequantisation: Literal["uniform", "variational"] = "uniform"
    dequantisation_hidden: int = 32
    memory: Literal["store", "invert"] = "store"

    def __post_init__(self):
        super().__post_init__()
        self._require_choice("dequantisation", ("uniform", "variational"))
        self._require_choice("memory", ("store", "invert"))
        if self.dequantisation_hidden < 1:
            raise InputError(
                f"{self._model} expects dequantisation_hidden of at least 1, got {self.dequantisation_hidden}"
            )
        if self.dequantisation == "variational" and self.width % 2:
            raise InputError(f"{self._model} expects an even width for variational dequantisation, got {self.width}")


class ImageFlow(ImageModel):
    r"""A density of dequantised images y = (x + u) / values in [0, 1), seen as a model of the images x.

    .. math::
        \log P(x) \ge E_{u \sim q}[\log p(y) - \log q(u \mid x)] - D \log(\mathrm{values})

    ``log_prob`` estimates the right hand side by a single u. The continuous density is in ``flow``, a
    :class:`~waveflow.distributions.Flow` of floats (B, C, H, W); the noise in ``dequantise``. ``sample``, ``encode``
    and ``decode`` run in evaluation mode, whatever mode the model is in.

    A subclass gives :meth:`bijector` and, if it is not standard normal, :meth:`base`.
    """

    config: ImageFlowConfig
    exact = False

    def build(self) -> None:
        self.flow = Flow(self.base(self.config), self.bijector(self.config), self.image_shape)
        c = self.config
        if c.dequantisation == "uniform":
            self.dequantise = UniformDequantisation()
        else:
            self.dequantise = VariationalDequantisation(c.image_shape, c.dequantisation_hidden, memory=c.memory)

    @staticmethod
    def bijector(config: Any) -> Bijector:
        """The model's map from y to its latent."""
        raise NotImplementedError

    @staticmethod
    def base(config: Any) -> Base:
        """Distribution of the latent."""
        return StandardNormal()

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one image's latent."""
        return self.flow.bijector.output_shape(self.image_shape)

    @torch.no_grad()
    def encode(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Latents (B, \\*latent_shape) of images, without noise: every pixel in the middle of its interval."""
        self._check_images(images, "encode")
        context = self._context(label, len(images), "encode")
        x = images.to(self._like().dtype)
        with self._at_rest():
            return self.flow.bijector(to_unit_interval(x, torch.full_like(x, 0.5), self.config.values), context)[0]

    @torch.no_grad()
    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images uint8 (B, C, H, W) of latents; ``decode(encode(images))`` is ``images``.

        Raises:
            InputError: for latents of another type or shape.
            FloatingPointError: if the result is not finite.
        """
        name = type(self).__name__
        if not isinstance(z, Tensor) or not z.is_floating_point() or tuple(z.shape[1:]) != self.latent_shape:
            got = f"{z.dtype} {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
            shape = ", ".join(map(str, self.latent_shape))
            raise InputError(f"{name}.decode expects latents (B, {shape}) of floats, got {got}")
        with self._at_rest():
            y, _ = self.flow.bijector.inverse(z.to(self._like().dtype), self._context(label, len(z), "decode"))
        if not y.isfinite().all():
            raise FloatingPointError(f"{name}.decode gave pixels that are not finite: are the latents far off?")
        return self._to_pixels(y)

    @torch.no_grad()
    def initialize(self, images: Tensor, label: Tensor | None = None) -> None:
        """Run the data-dependent initialisation of layers that have one on images, if it has not happened yet."""
        training = self.training
        self.train()
        try:
            self.log_prob(images, label)
        finally:
            self.train(training)

    def _log_prob(self, images: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Tensor:
        values = self.config.values
        y, log_q = self.dequantise(images.to(self._like().dtype), values, generator)
        return self.flow.log_prob(y, context) - log_q - math.prod(self.image_shape) * math.log(values)

    def _sample(self, n: int, context: Tensor | None, temperature: float, generator: torch.Generator | None) -> Tensor:
        shape = () if context is not None else (n,)
        with self._at_rest():
            return self._to_pixels(self.flow.sample(shape, context, temperature, generator))

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Evaluation mode: to look at latents must not move what layers keep of training batches."""
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training

    def _to_pixels(self, y: Tensor) -> Tensor:
        values = self.config.values
        return (y * values).floor().clamp(0, values - 1).to(torch.uint8)

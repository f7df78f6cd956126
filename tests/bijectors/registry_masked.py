"""Autoregressive maps of images by the stacks of PixelCNN and Gated PixelCNN: name -> (bijector, x, context)."""

import torch

from waveflow.bijectors import Affine, Autoregressive, Inverse, MixtureOfLogisticsCDF, Standardise
from waveflow.bijectors.solvers import Jacobi
from waveflow.networks import GatedPixelCNNStack, PixelCNNStack


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(17))


def pixelcnn(shape, univariate, solver="auto", **options) -> Autoregressive:
    stack = PixelCNNStack(shape, univariate.params, **{"hidden": 12, "layers": 1, "first_kernel": 3, **options})
    return Autoregressive(stack, univariate, solver)


def gated(shape, univariate, solver="auto", **options) -> Autoregressive:
    stack = GatedPixelCNNStack(shape, univariate.params, **{"hidden": 8, "layers": 2, "first_kernel": 3, **options})
    return Autoregressive(stack, univariate, solver)


BIJECTORS = {
    "PixelCNN flow": lambda: (pixelcnn((1, 4, 3), Standardise()), random(2, 1, 4, 3), None),
    "PixelCNN flow, colours, context, by Jacobi": lambda: (
        pixelcnn((3, 2, 2), Affine(), Jacobi(0.0), context=2),
        random(2, 3, 2, 2),
        torch.eye(2),
    ),
    "Gated PixelCNN flow, context": lambda: (
        gated((1, 4, 3), Standardise(), context=2),
        random(2, 1, 4, 3),
        torch.eye(2),
    ),
    "Gated PixelCNN flow, colours": lambda: (gated((3, 3, 2), Standardise()), random(2, 3, 3, 2), None),
    "Gated PixelCNN flow of mixtures": lambda: (
        gated((1, 3, 3), MixtureOfLogisticsCDF(2)),
        random(2, 1, 3, 3),
        None,
    ),
    "Inverse of a Gated PixelCNN flow": lambda: (Inverse(gated((2, 2, 2), Affine())), random(2, 2, 2, 2), None),
}

"""The bijectors of NICE and RealNVP, and of what only they use: name -> (bijector, x, context)."""

import torch

from waveflow.bijectors import Affine, BatchNorm, Chain, Checkerboard, Coupling, Flatten, Halves, Logit
from waveflow.distributions import VariationalDequantisation
from waveflow.models import NICE, RealNVP
from waveflow.networks import ResNet


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(23))


def pixels(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(29))


class Evaluated(Chain):
    """A chain that is never in training, since there the items of a batch see each other."""

    def train(self, mode: bool = True):
        return super().train(False)


def batch_norm() -> Evaluated:
    norm = BatchNorm(3)
    norm.mean.copy_(torch.tensor([1.0, -2.0, 0.5]))
    norm.variance.copy_(torch.tensor([4.0, 0.3, 1.0]))
    return Evaluated([norm]).eval()


def nice(memory: str = "store"):
    return NICE(height=2, width=4, layers=3, hidden=(8, 8), memory=memory).flow.bijector


def realnvp(levels: int, classes: int = 0, **fields):
    return RealNVP(
        channels=1, height=4, width=4, levels=levels, blocks=1, hidden=4, norm="actnorm", classes=classes, **fields
    ).flow.bijector


BIJECTORS = {
    "Flatten": lambda: (Flatten((2, 3, 2)), random(3, 2, 3, 2), None),
    "Logit": lambda: (Logit(), pixels(3, 2, 4), None),
    "Logit, all of the interval": lambda: (Logit(0.0), pixels(3, 5), None),
    "BatchNorm": lambda: (batch_norm(), random(4, 3, 2, 2), None),
    "Residual coupling, map as context": lambda: (
        Coupling(Halves(), ResNet(1, 2, 6, 2, context=3), Affine()),
        random(3, 2, 2, 4),
        random(3, 3, 2, 4),
    ),
    "Residual coupling, checkerboard, label": lambda: (
        Coupling(Checkerboard(), ResNet(2, 4, 6, 1, context=3), Affine()),
        random(3, 2, 2, 4),
        random(3, 3),
    ),
    "Noise of a variational dequantisation": lambda: (
        VariationalDequantisation((1, 2, 4), hidden=6, layers=2).noise.bijector,
        random(3, 1, 2, 4),
        random(3, 1, 2, 4),
    ),
    "NICE": lambda: (nice(), pixels(6, 1, 2, 4), None),
    "NICE, inverted memory": lambda: (nice("invert"), pixels(6, 1, 2, 4), None),
    "RealNVP": lambda: (realnvp(2), pixels(4, 1, 4, 4), None),
    "RealNVP, one level, label": lambda: (realnvp(1, classes=3), pixels(3, 1, 4, 4), random(3, 3)),
    "RealNVP, inverted memory": lambda: (realnvp(2, memory="invert"), pixels(4, 1, 4, 4), None),
}

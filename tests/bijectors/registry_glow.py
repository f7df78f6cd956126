"""The parts that Glow is made of: name -> (bijector, x, context)."""

import torch

from waveflow.bijectors import (
    ActNorm,
    Affine,
    Chain,
    ConditionalElementwise,
    Coupling,
    Halves,
    InvertibleConv1x1,
    MultiScale,
    Offset,
    Shift,
    Squeeze,
    Standardise,
)
from waveflow.networks import CouplingNet, ZeroConv2d


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(17))


def coupling(channels: int, univariate=None, **options) -> Coupling:
    univariate = univariate or Affine("sigmoid")
    half = channels // 2
    return Coupling(Halves(), CouplingNet(half, univariate.params * half, hidden=5, **options), univariate)


def prior(channels: int) -> Coupling:
    half = channels // 2
    return Coupling(Halves(swap=True), ZeroConv2d(half, 2 * half), Standardise())


def two_levels(memory: str) -> MultiScale:
    first = [Squeeze(2), ActNorm(4), InvertibleConv1x1(4), coupling(4, context=3), prior(4)]
    top = ConditionalElementwise(Standardise(), (8, 1, 1), 3)
    return MultiScale([Chain(first, memory), Chain([Squeeze(2), coupling(8, context=3), top], memory)], [2])


BIJECTORS = {
    "Offset": lambda: (Offset(-0.5), random(3, 2, 4), None),
    "Elementwise by context": lambda: (
        ConditionalElementwise(Standardise(), (3, 1, 1), 4),
        random(2, 3, 2, 2),
        random(2, 4),
    ),
    "Elementwise shift by context, vectors": lambda: (
        ConditionalElementwise(Shift(), (3,), 2),
        random(4, 3),
        random(4, 2),
    ),
    "Glow's coupling": lambda: (coupling(4), random(3, 4, 2, 4), None),
    "Glow's coupling, additive": lambda: (coupling(4, Shift()), random(3, 4, 2, 4), None),
    "Glow's coupling, plain network, label": lambda: (
        coupling(4, norm=False, context=3),
        random(3, 4, 4, 2),
        random(3, 3),
    ),
    "Prior of what leaves a level": lambda: (prior(4), random(3, 4, 2, 3), None),
    "Two levels of Glow": lambda: (two_levels("store"), random(3, 1, 4, 4), random(3, 3)),
    "Two levels of Glow, inverted memory": lambda: (two_levels("invert"), random(3, 1, 4, 4), random(3, 3)),
}

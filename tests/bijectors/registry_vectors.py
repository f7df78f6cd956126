"""Univariate maps with shape, and maps of vectors: name -> (bijector, x, context)."""

import torch
from torch import nn

from waveflow.bijectors import (
    Alternating,
    Chain,
    Coupling,
    Elementwise,
    Inverse,
    LULinear,
    MixtureOfLogisticsCDF,
    Planar,
    Radial,
    RationalQuadraticSpline,
    Sylvester,
)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(11))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Linear):
    """The smallest conditioner."""

    def forward(self, kept, context=None):
        return super().forward(kept if context is None else torch.cat([kept, context], 1))


def coupling(univariate, context: int = 0) -> Coupling:
    return Coupling(Alternating(), Linear(2 + context, 2 * univariate.params), univariate)


BIJECTORS = {
    "Elementwise spline": lambda: (Elementwise(RationalQuadraticSpline(), (3, 1)), 3 * random(4, 3, 5), None),
    "Elementwise spline, circular": lambda: (
        Elementwise(RationalQuadraticSpline(bins=3, bound=2.0, circular=True), (4,)),
        3 * random(4, 4),
        None,
    ),
    "Spline coupling": lambda: (coupling(RationalQuadraticSpline()), 2 * random(4, 4), None),
    "Spline coupling, context": lambda: (coupling(RationalQuadraticSpline(), 3), 2 * random(4, 4), random(4, 3)),
    "Elementwise mixture of logistics": lambda: (Elementwise(MixtureOfLogisticsCDF(3), (2, 1)), random(3, 2, 4), None),
    "Mixture of logistics coupling": lambda: (coupling(MixtureOfLogisticsCDF()), 2 * random(4, 4), None),
    "Planar": lambda: (Planar(3, seeded()), random(5, 3), None),
    "Inverse of planar maps": lambda: (
        Inverse(Chain([Planar(2, seeded(i)) for i in range(3)])),
        random(5, 2),
        None,
    ),
    "Planar, one feature": lambda: (Planar(1, seeded()), random(5, 1), None),
    "Radial": lambda: (Radial(3), random(5, 3), None),
    "Sylvester": lambda: (Sylvester(5, 2, seeded()), random(4, 5), None),
    "Sylvester, all of the space": lambda: (Sylvester(3, 3, seeded()), random(4, 3), None),
    "LU linear": lambda: (LULinear(4, generator=seeded()), random(4, 4), None),
    "LU linear, no bias": lambda: (LULinear(3, bias=False, permute=False), random(4, 3), None),
}

"""The bijectors of whole models of vectors, and of what only they use: name -> (bijector, x, context)."""

import torch

from waveflow.bijectors import ZScore
from waveflow.models import IAF, MAF, NSF, CouplingFlow, PlanarFlow


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def zscore() -> ZScore:
    bijector = ZScore(3)
    bijector.fit(torch.tensor([[1.0, 20.0, -3.0], [4.0, 10.0, 0.5], [0.0, 13.0, 0.0]]))
    return bijector


def conditioned(model: type, **fields) -> tuple:
    model = model(features=3, layers=2, hidden=(8, 8), context=2, activation="tanh", **fields)
    model.standardise(5 + 2 * rows(20, 3))
    return model.bijector, 5 + 2 * rows(4, 3), rows(4, 2)


BIJECTORS = {
    "ZScore": lambda: (zscore(), 5 * rows(4, 3), None),
    "MAF": lambda: conditioned(MAF),
    "IAF": lambda: conditioned(IAF),
    "NSF, autoregressive": lambda: conditioned(NSF, bins=4),
    "NSF, couplings": lambda: conditioned(NSF, bins=4, coupling=True),
    "CouplingFlow": lambda: conditioned(CouplingFlow),
    "PlanarFlow": lambda: (PlanarFlow(features=3, layers=3).bijector, rows(4, 3), None),
}

"""A flow of affine couplings on vectors."""

import torch
from torch import Tensor, nn

from waveflow.bijectors import Affine, Chain, Coupling, Elementwise, Halves
from waveflow.context import Context
from waveflow.distributions import Flow, StandardNormal


class Perceptron(nn.Sequential):
    """Two hidden layers, with a last layer that starts at zero."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        last = nn.Linear(hidden, outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        return super().forward(x)


def coupling_flow(features: int, layers: int, hidden: int, seed: int) -> Flow:
    """RealNVP on vectors (Dinh et al., 2017; arXiv:1605.08803): the halves take turns; at first the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        half, maps = features // 2, []
        for i in range(layers):
            kept, changed = (half, features - half) if i % 2 == 0 else (features - half, half)
            maps.append(Coupling(Halves(swap=i % 2 == 1), Perceptron(kept, hidden, 2 * changed), Affine()))
        return Flow(StandardNormal(), Chain([*maps, Elementwise(Affine(), (features,))]), (features,))

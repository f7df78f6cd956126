"""Autoregressive maps over the rows of folded waveforms, by WaveFlow's stack: name -> (bijector, x, context)."""

import torch

from waveflow.bijectors import Affine, Autoregressive, Chain, Squeeze
from waveflow.bijectors.solvers import Jacobi
from waveflow.models.waveflow_model import ConditionedRows
from waveflow.networks import LinearUpsampler, SpectrogramUpsampler, WaveFlowStack


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(23))


def rows(order: list[int], scale: str = "exp", solver: str | Jacobi = "sequential") -> Autoregressive:
    stack = WaveFlowStack(order, 2, channels=4, layers=2, kernel_size=3, context_channels=3)
    return Autoregressive(stack, Affine(scale), solver)


def vocoder(encoder: torch.nn.Module, encoded_rows: int, memory: str) -> Chain:
    flows = Chain([rows([0, 1, 2, 3]), rows([3, 2, 1, 0])], memory)
    return Chain([Squeeze(4, dims=1), ConditionedRows(encoder, flows, encoded_rows)])


BIJECTORS = {
    "WaveFlow's rows": lambda: (rows([0, 1, 2, 3]), random(2, 4, 6), random(2, 3, 4, 6)),
    "WaveFlow's rows in another order, shared context, by Jacobi": lambda: (
        rows([2, 0, 1], "tanh_exp", Jacobi(0.0)),
        random(2, 3, 5),
        random(2, 3, 1, 5),
    ),
    "WaveFlow": lambda: (vocoder(SpectrogramUpsampler(3, 8), 4, "store"), random(2, 1, 24), random(2, 3, 3)),
    "WaveFlow, linear upsampler, inverted memory, part of a hop": lambda: (
        vocoder(LinearUpsampler(5, 3, 8, 4), 1, "invert"),
        random(2, 1, 20),
        random(2, 5, 3),
    ),
}

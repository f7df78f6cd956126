"""What the tests of compiled layers share."""

import torch
from torch import Tensor

from waveflow.networks import WaveNetStack


def move_far(network: WaveNetStack) -> WaveNetStack:
    """Away from the start, where a stack says nothing."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return network


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Found in float32, expected in float64: the same to rounding."""
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()

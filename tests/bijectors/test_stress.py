"""Stacks whose networks have grown: the inverse holds in float32, or its failure is reported."""

import pytest
import torch
from torch import nn

from waveflow.bijectors import Affine, Alternating, Chain, Coupling, MixtureOfLogisticsCDF, RationalQuadraticSpline
from waveflow.distributions import Flow, StandardNormal
from waveflow.models import NSF
from waveflow.networks import MADE, MLP

FEATURES = 8
UNIVARIATES = {
    "affine": Affine("gentle"),
    "spline": RationalQuadraticSpline(),
    "mixture of logistics": MixtureOfLogisticsCDF(),
}


class Network(nn.Sequential):
    def __init__(self, outputs: int):
        super().__init__(nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, outputs))

    def forward(self, kept, context=None):
        return super().forward(kept)


def grown(univariate, gain: float, last: float = 1.0) -> Flow:
    """Five couplings with PyTorch's initial weights, the last layers' times ``last``, all times ``gain``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = [Network(univariate.params * 4) for _ in range(5)]
    with torch.no_grad():
        for network in networks:
            network[-1].weight.mul_(last)
            network[-1].bias.mul_(last)
            for parameter in network.parameters():
                parameter.mul_(gain)
    layers = [Coupling(Alternating(swap=i % 2 == 1), network, univariate) for i, network in enumerate(networks)]
    return Flow(StandardNormal(), Chain(layers), (FEATURES,))


@pytest.mark.parametrize("gain", [1.0, 2.0])
@pytest.mark.parametrize("name", UNIVARIATES)
def test_inverse_holds_five_standard_deviations_out(name, gain):
    x = torch.randn(2000, FEATURES, generator=torch.Generator().manual_seed(0))
    x = 5 * x / x.abs().amax(1, keepdim=True)
    assert grown(UNIVARIATES[name], gain, last=0.1).inverse_error(x).max() < 1e-5 * gain


@pytest.mark.parametrize("name", UNIVARIATES)
def test_what_is_lost_in_a_map_too_steep_is_not_lost_silently(name):
    flow = grown(UNIVARIATES[name], 8.0)
    generator = torch.Generator().manual_seed(0)
    assert flow.inverse_error(2 * torch.randn(500, FEATURES, generator=generator)).max() > 1
    with pytest.raises(FloatingPointError, match=r"off by|not finite"):
        flow.sample((500,), generator=generator, check=1e-3)


def test_gentle_scales_lose_less_than_wide_ones():
    x = 2 * torch.randn(500, FEATURES, generator=torch.Generator().manual_seed(0))
    gentle, wide = (grown(Affine(scale), 2.0).inverse_error(x).max() for scale in ("gentle", "tanh_exp"))
    assert 100 * gentle < wide


@pytest.mark.parametrize("coupling", [False, True])
def test_splines_of_a_small_raw_scale_stay_gentle_where_networks_have_grown(coupling):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NSF(features=FEATURES, hidden=(100, 100), coupling=coupling, raw_scale=0.1)
        for network in model.modules():
            if isinstance(network, MADE | MLP):
                network.last.reset_parameters()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    x = 2 * torch.randn(500, FEATURES, generator=torch.Generator().manual_seed(0))
    assert model.inverse_error(x).max() < 1e-3

"""Glow's coupling network: its formula, its start, its norms."""

import pytest
import torch
import torch.nn.functional as F

from waveflow.bijectors import Affine, Chain, Coupling, Halves
from waveflow.first_batch import no_first_batch
from waveflow.networks import CouplingNet, ZeroConv2d


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def perturbed(network, std=0.3):
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(std * torch.randn(parameter.shape, generator=generator))
    return network


def norm(h, scale):
    return (h + scale.shift[:, None, None]) * scale.log_scale.exp()[:, None, None]


@pytest.mark.parametrize("normed", [True, False])
def test_is_the_formula(normed):
    network = perturbed(CouplingNet(3, 4, hidden=6, context=5, norm=normed)).double().eval()
    x, label = random(2, 3, 4, 5).double(), F.one_hot(torch.tensor([1, 4]), 5).double()

    def hidden(h, layer, padding):
        h = F.conv2d(h, layer.weight, padding=padding)
        return norm(h, layer.norm) if normed else h + layer.bias[:, None, None]

    h = F.relu(hidden(x, network.first, 1) + network.by_context[:, [1, 4]].T[:, :, None, None])
    h = F.relu(hidden(h, network.second, 0))
    last = network.last
    y = (F.conv2d(h, last.weight, padding=1) + last.bias[:, None, None]) * (3 * last.log_scale).exp()[:, None, None]
    torch.testing.assert_close(network(x, label), y)


def test_starts_at_zero_and_can_leave():
    network = CouplingNet(2, 3, hidden=8)
    y = network(random(4, 2, 4, 4))
    assert y.shape == (4, 3, 4, 4) and not y.any()
    (y - 1).square().sum().backward()
    assert network.last.weight.grad.any() and network.last.bias.grad.any()


def test_first_training_batch_standardises_the_hidden_layers():
    network, x = CouplingNet(2, 2, hidden=16).eval(), 5 + 3 * random(32, 2, 6, 6)
    before = network(x)
    assert not network.first.norm.initialized and torch.equal(before, network(x))
    network.train()(x)
    shift = network.second.norm.shift.clone()
    h1 = norm(F.conv2d(x, network.first.weight, padding=1), network.first.norm)
    h2 = norm(F.conv2d(F.relu(h1), network.second.weight), network.second.norm)
    for h in (h1, h2):
        torch.testing.assert_close(h.mean((0, 2, 3)), torch.zeros(16), atol=1e-4, rtol=0)
        torch.testing.assert_close(h.std((0, 2, 3), unbiased=False), torch.ones(16), atol=1e-4, rtol=0)
    network(x + 7)
    assert torch.equal(network.second.norm.shift, shift)
    twin = CouplingNet(2, 2, hidden=16)
    twin.load_state_dict(network.state_dict())
    twin(10 * x)
    assert torch.equal(twin.second.norm.shift, shift)


@pytest.mark.parametrize("memory", ["store", "invert"])
def test_latents_are_no_first_batch(memory):
    network = CouplingNet(2, 4, hidden=8)
    chain, x = Chain([Coupling(Halves(), network, Affine())], memory), random(8, 4, 4, 4).requires_grad_()
    chain.inverse(x)
    with no_first_batch():
        network(x[:, :2])
    assert not network.first.norm.initialized
    z, log_det = chain(x)
    assert network.first.norm.initialized
    shift = network.first.norm.shift.clone()
    (z.sum() + log_det.sum()).backward()
    assert torch.equal(network.first.norm.shift, shift) and network.last.weight.grad.any()


def test_memory_format_of_the_input_does_not_matter():
    network, x = perturbed(CouplingNet(3, 2, hidden=4)).eval(), random(2, 3, 6, 4)
    expected = network(x)
    torch.testing.assert_close(network(x.to(memory_format=torch.channels_last)), expected)
    torch.testing.assert_close(network(torch.cat([x, x], 1)[:, 3:]), expected)


def test_a_prior_ignores_the_label():
    network = perturbed(ZeroConv2d(3, 2))
    x = random(2, 3, 4, 4)
    assert torch.equal(network(x, torch.eye(2)), network(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CouplingNet(0, 2), "positive sizes, got in_channels=0"),
        (lambda: CouplingNet(2, 2, context=-1), "context=-1"),
        (lambda: CouplingNet(2, 2, 4, context=3)(random(1, 2, 4, 4)), r"context \(B, 3\), got None"),
        (lambda: CouplingNet(2, 2, 4, context=3)(random(1, 2, 4, 4), torch.ones(1, 2)), r"context \(B, 3\), got .*2"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

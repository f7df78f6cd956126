"""Residual networks: their formula, their reach, and what they refuse."""

import pytest
import torch
import torch.nn.functional as F

from waveflow.context import Ragged
from waveflow.networks import ResNet


def perturbed(network, size=0.3):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return network


def test_is_the_formula():
    network = perturbed(ResNet(3, 5, hidden=4, blocks=2, context=2)).double()
    x, context = torch.randn(2, 3, 5, 4).double(), torch.randn(2, 2).double()

    def convolve(layer, x):
        norm, direction = (layer.parametrizations.weight.original0, layer.parametrizations.weight.original1)
        weight = norm * direction / direction.flatten(1).norm(dim=1)[:, None, None, None]
        return F.conv2d(x, weight, layer.bias, padding=weight.shape[-1] // 2)

    h = (
        convolve(network.first, x)
        + torch.einsum("oc,bc->bo", network.condition.weight[..., 0, 0], context)[:, :, None, None]
    )
    total = convolve(network.skips[0], h)
    for (_, one, _, two), skip in zip(network.blocks, network.skips[1:], strict=True):
        h = h + convolve(two, convolve(one, h.clamp_min(0)).clamp_min(0))
        total = total + convolve(skip, h)
    expected = F.conv2d(total.clamp_min(0), network.last.weight, network.last.bias)
    torch.testing.assert_close(network(x, context), expected)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_starts_at_zero_and_learns_from_there(batch_norm):
    network = ResNet(2, 4, hidden=6, blocks=2, batch_norm=batch_norm)
    y = network(torch.randn(3, 2, 4, 4))
    assert not y.any()
    y.sum().backward()
    assert network.last.weight.grad.any()


def test_a_map_and_a_vector_are_the_same_context():
    network = perturbed(ResNet(2, 4, hidden=6, context=3))
    x, context = torch.randn(2, 2, 4, 6), torch.randn(2, 3)
    as_map = context[:, :, None, None].expand(-1, -1, 4, 6)
    torch.testing.assert_close(network(x, context), network(x, as_map))
    assert (network(x, context) - network(x, context.flip(0))).abs().max() > 1e-3


def test_reaches_as_far_as_its_convolutions():
    network = perturbed(ResNet(1, 1, hidden=16, blocks=2)).double()
    x = torch.randn(1, 1, 21, 21).double().requires_grad_()
    network(x)[0, 0, 10, 10].backward()
    rows = x.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert (rows.min().item(), rows.max().item()) == (5, 15)  # one convolution, and two for each block


def test_only_batch_normalisation_lets_items_see_each_other():
    x = torch.randn(4, 2, 4, 4)
    for batch_norm in (False, True):
        network = perturbed(ResNet(2, 2, hidden=4, batch_norm=batch_norm))
        alone, together = network(x[:1]), network(x)[:1]
        assert (batch_norm, (alone - together).abs().max() > 1e-3) in ((False, False), (True, True))
        network.eval()
        torch.testing.assert_close(network(x[:1]), network(x)[:1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ResNet(0, 1), "ResNet expects positive sizes, got in_channels=0"),
        (lambda x: ResNet(1, 1, blocks=0), "blocks=0"),
        (lambda x: ResNet(2, 1, hidden=2, context=3)(x), "a context of 3 channels, got None"),
        (lambda x: ResNet(2, 1, hidden=2)(x, torch.zeros(2, 3)), r"expects no context, got \(2, 3\)"),
        (
            lambda x: ResNet(2, 1, hidden=2, context=3)(x, torch.zeros(2, 4)),
            r"a context \(B, 3\) or \(B, 3, 4, 6\), got \(2, 4\)",
        ),
        (lambda x: ResNet(2, 1, hidden=2, context=3)(x, torch.zeros(2, 3, 4, 4)), r"got \(2, 3, 4, 4\)"),
        (
            lambda x: ResNet(2, 1, hidden=2, context=3)(x, Ragged(torch.zeros(2, 3), torch.ones(2, 1))),
            "got a padded batch",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 2, 4, 6))

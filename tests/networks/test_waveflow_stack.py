"""WaveFlow's stack against a plain sum over taps, row by row against all at once, and what it sees."""

import pytest
import torch

from waveflow.context import Ragged
from waveflow.networks import WaveFlowStack
from waveflow.networks.waveflow_stack import height_dilations
from waveflow.testing import check_causal


def stack(order, layers=3, channels=4, kernel_size=3, context=5):
    network = WaveFlowStack(order, 2, channels, layers, kernel_size, context).double()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return network


def example(height, width=7, rows=None, batch=2):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(batch, height, width, generator=generator).double()
    return x, torch.randn(batch, 5, rows or height, width, generator=generator).double()


def naive(network, x, context):
    """Row by row in order, number by number, tap by tap."""
    order, width = list(network.rows.tolist()), x.shape[2]
    rows = range(1, len(order))
    h = {r: x[:, order[r - 1], :, None] * network.input.weight[:, 0] + network.input.bias for r in rows}
    skips = dict.fromkeys(rows, 0)
    for layer in network.layers:
        taps, (down, across) = layer.kernel_size, layer.dilation
        weight, states = layer.gates.weight, dict(h)
        for r in rows:
            source = context[:, :, order[r] if context.shape[2] > 1 else 0]
            gates = (
                layer.gates.bias
                + layer.condition.bias
                + torch.einsum("oi,biw->bwo", layer.condition.weight[:, :, 0, 0], source)
            )
            for i in range(taps):
                above = states.get(r - (taps - 1 - i) * down)
                for j in range(taps):
                    for w in range(width):
                        column = w + (j - taps // 2) * across
                        if above is not None and 0 <= column < width:
                            gates[:, w] += above[:, column] @ weight[:, :, i, j].T
            a, b = gates.chunk(2, 2)
            mixed = (torch.tanh(a) * torch.sigmoid(b)) @ layer.mix.weight[:, :, 0, 0].T + layer.mix.bias
            skips[r] = skips[r] + mixed[..., -layer.channels :]
            if mixed.shape[2] > layer.channels:
                h[r] = states[r] + mixed[..., : layer.channels]
    y = torch.zeros(len(x), 2, *x.shape[1:], dtype=x.dtype)
    for r in rows:
        y[:, :, order[r]] = (skips[r] @ network.output.weight[:, :, 0, 0].T + network.output.bias).transpose(1, 2)
    return y


@pytest.mark.parametrize(
    ("order", "rows", "options"),
    [
        ([0, 1, 2, 3], 4, {}),
        ([2, 1, 0, 3], 1, {}),
        ([1, 0], 2, {"kernel_size": 5, "layers": 2}),
        (list(range(18)), 1, {"layers": 4, "channels": 2}),  # dilated over rows too
    ],
)
@torch.no_grad()
def test_against_a_plain_sum(order, rows, options):
    network, (x, context) = stack(order, **options), example(len(order), rows=rows)
    expected = naive(network, x, context)
    assert not expected[:, :, order[0]].any() and expected.abs().max() > 0.1
    torch.testing.assert_close(network(x, context), expected)
    torch.testing.assert_close(network.folded(torch.float64)(x, context), expected)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 0, 3, 2], list(range(20))])
@pytest.mark.parametrize("shared", [False, True])
def test_is_causal_over_rows_and_its_stepper_the_same(order, shared):
    x, context = example(len(order), width=5, rows=1 if shared else None)
    check_causal(WaveFlowStack(order, 2, 3, 3, 3, 5), x, context)


@torch.no_grad()
def test_columns_within_reach_and_no_others_are_seen():
    network = stack([0, 1, 2], layers=3)
    x, context = example(3, width=33)
    moved = x.clone()
    moved[:, 0, 16] += 1
    seen = (network(moved, context) - network(x, context)).abs().amax((0, 1, 2)).nonzero().flatten()
    assert network.reach == 1 + 2 + 4 == 16 - seen.min() == seen.max() - 16


@pytest.mark.parametrize("folded", [False, True])
@torch.no_grad()
def test_padding_is_as_if_it_were_not_there(folded):
    network, (x, context) = stack([1, 0, 2]), example(3, width=12)
    network = network.folded(torch.float64) if folded else network
    mask = Ragged.from_lengths(torch.ones(2, 1, 12).double(), torch.tensor([12, 5])).mask.unsqueeze(2)
    ragged = Ragged(context * mask, mask)
    alone = network(x[1:, :, :5], context[1:, ..., :5])
    torch.testing.assert_close(network(x, ragged)[1:, ..., :5], alone)
    stepper = network.stepper(2, ragged)
    for row in (1, 0, 2):
        torch.testing.assert_close(stepper.params()[1:, :, :5], alone[:, :, row])
        stepper.push(x[:, row])


def test_height_dilations_of_the_paper_reach_over_all_rows():
    assert height_dilations(16, 8) == [1] * 8
    assert height_dilations(32, 8) == [1, 2, 4, 1, 2, 4, 1, 2]
    assert height_dilations(64, 8) == [1, 2, 4, 8, 16, 1, 2, 4]
    assert height_dilations(128, 8) == [1, 2, 4, 8, 16, 32, 64, 1]
    for height in (2, 16, 17, 32, 33, 64, 65, 128):
        assert 1 + 2 * sum(height_dilations(height, 8)) >= height


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stack([0, 2]), r"order of at least 2 rows, got \[0, 2\]"),
        (lambda: stack([0]), "order of at least 2 rows"),
        (lambda: stack([0, 1], kernel_size=2), "odd kernel_size, got 2"),
        (lambda: height_dilations(129, 8), "at most 128, got 129"),
        (lambda: stack([0, 1])(torch.zeros(2, 3, 4), torch.zeros(2, 5, 3, 4)), r"expects \(B, 2, W\), got \(2, 3, 4\)"),
        (lambda: stack([0, 1])(torch.zeros(2, 2, 4)), r"\(2, 5, 2, 4\) or \(2, 5, 1, 4\), got None"),
        (lambda: stack([0, 1])(torch.zeros(2, 2, 4), torch.zeros(2, 5, 2, 5)), r"got \(2, 5, 2, 5\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

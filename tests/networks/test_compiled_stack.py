"""A non-causal stack in compiled code against the same in plain PyTorch, in float64."""

import copy

import pytest
import torch
from compiled_checks import assert_near, move_far

from waveflow.context import Ragged
from waveflow.networks import WaveNetStack

STACKS = {
    "as WaveGlow's": {"context_channels": 7},
    "no context": {},
    "channels of two vectors, dilations begin again": {"channels": 32, "cycle": 2, "context_channels": 3},
    "wide": {"channels": 136, "layers": 2, "context_channels": 3},
    "5 taps": {"kernel_size": 5, "context_channels": 3},
    "1 tap": {"kernel_size": 1},
    "one layer": {"layers": 1, "context_channels": 3},
}


@pytest.fixture(autouse=True)
def wide_vectors(monkeypatch):
    """As on a processor with AVX-512; what is compiled runs on any."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


def make_stack(channels=20, layers=5, kernel_size=3, **fields):
    return move_far(WaveNetStack(4, 6, channels, layers, kernel_size=kernel_size, **fields))


def example(network, length, batch=2):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(batch, 4, length, generator=generator)
    channels = network.layers[0].condition.in_channels if network.layers[0].condition is not None else 0
    return x, torch.randn(batch, channels, length, generator=generator) if channels else None


def exact(network, x, context):
    if isinstance(context, Ragged):
        context = Ragged(*(part.double() for part in context))
    elif context is not None:
        context = context.double()
    return copy.deepcopy(network).double()(x.double(), context)


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("length", [1, 13, 128, 300, 700])
@torch.no_grad()
def test_equals_plain_pytorch_in_float64(name, length):
    network = make_stack(**STACKS[name])
    folded = network.folded()
    x, context = example(network, length)
    assert folded.runs_compiled(x)
    assert_near(folded(x, context), exact(network, x, context))


@pytest.mark.parametrize("threads", [2, 3])
@torch.no_grad()
def test_padded_items_come_out_as_if_alone(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    network = make_stack(context_channels=3)
    folded = network.folded()
    x, context = example(network, 400, 3)
    lengths = torch.tensor([400, 130, 3])
    ragged = Ragged.from_lengths(context, lengths)
    together, expected = folded(x, ragged), exact(network, x, ragged)
    for i, n in enumerate(lengths.tolist()):
        alone = folded(x[i : i + 1, :, :n], context[i : i + 1, :, :n])
        assert_near(together[i : i + 1, :, :n], expected[i : i + 1, :, :n])
        torch.testing.assert_close(together[i : i + 1, :, :n], alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_weights_that_change_are_packed_again():
    network = make_stack(context_channels=3)
    folded = network.folded()
    x, context = example(network, 200)
    before = folded(x, context)
    folded.output_bias.add_(1)
    torch.testing.assert_close(folded(x, context), before + 1)


def test_pytorch_computes_where_it_has_to(monkeypatch):
    folded = make_stack().folded()
    x = torch.randn(1, 4, 9)
    assert not folded.runs_compiled(x)
    x.requires_grad_()
    assert torch.autograd.grad(folded(x).sum(), x)[0].any()
    with torch.no_grad():
        assert folded.runs_compiled(x)
        assert folded(x[..., :0]).shape == (1, 6, 0)
        with torch.autocast("cpu", torch.bfloat16):
            assert not folded.runs_compiled(x)
        for other in (make_stack().folded(torch.bfloat16), make_stack().double().folded(torch.float64)):
            assert not other.runs_compiled(x)
        assert not make_stack(separable=True).folded().runs_compiled(x)
        compiled = make_stack().folded()
        compiled.compile()
        assert not compiled.runs_compiled(x)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
        assert not folded.runs_compiled(x)


@torch.no_grad()
def test_batches_that_differ_are_as_in_pytorch():
    network = make_stack(context_channels=3)
    folded = network.folded()
    x, context = example(network, 200, 3)
    assert_near(folded(x, context[:1]), exact(network, x, context[:1]))
    assert_near(folded(x[:1], context), exact(network, x[:1], context))
    one_mask = Ragged(context, Ragged.from_lengths(context[:1], torch.tensor([90])).mask)
    assert_near(folded(x, one_mask), exact(network, x, one_mask))
    with pytest.raises(RuntimeError, match="size"):
        folded(x, context[:2])


@torch.no_grad()
def test_masks_count_in_whole_numbers():
    network = make_stack(context_channels=3)
    x, context = example(network, 600)
    ragged = Ragged.from_lengths(context, torch.tensor([600, 387]))
    found = network.folded()(x, Ragged(ragged.values, ragged.mask.bfloat16()))
    assert_near(found[1:, :, :387], exact(network, x, ragged)[1:, :, :387])


@torch.no_grad()
def test_transforms_and_traces_see_pytorch():
    network = make_stack(context_channels=3)
    folded = network.folded()
    x, context = example(network, 50, 3)
    expected = folded(x, context)
    mapped = torch.vmap(lambda x, c: folded(x[None], c[None])[0])(x, context)
    torch.testing.assert_close(mapped, expected, rtol=1e-4, atol=1e-5)
    shared = torch.vmap(lambda c: folded(x[:1], c[None])[0])(context)
    torch.testing.assert_close(shared, folded(x[:1].expand_as(x), context), rtol=1e-4, atol=1e-5)
    _, change = torch.func.jvp(lambda x: folded(x, context), (x,), (torch.ones_like(x),))
    step = 1e-3
    torch.testing.assert_close(change, (folded(x + step, context) - expected) / step, rtol=0.05, atol=0.05)
    traced = torch.jit.trace(folded, (x, context))
    torch.testing.assert_close(traced(2 * x, context), folded(2 * x, context), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_another_default_device_does_not_matter():
    network = make_stack(context_channels=3)
    x, context = example(network, 50)
    expected = network.folded()(x, context)
    folded = network.folded()
    with torch.device("meta"):
        assert torch.equal(folded(x, context), expected)

"""The causal stack: what it sees, sample by sample and all at once, against plain writings of it."""

import math

import pytest
import torch
import torch.nn.functional as F

from waveflow.networks import MaskedConv1d, WaveNetStack
from waveflow.networks.causal_convolution import CausalConv1d
from waveflow.testing import check_causal

FORMS = {
    "plain, 2 taps": {"kernel_size": 2},
    "without context": {"context_channels": 0, "kernel_size": 3},
    "post": {"post": True, "kernel_size": 3},
    "scaled": {"scaled": True, "kernel_size": 2},
    "scaled, post, 32 first taps": {"scaled": True, "post": True, "first_kernel": 32, "kernel_size": 2},
    "5 first taps, dilations that grow on": {"first_kernel": 5, "cycle": 0},
    "separable": {"separable": True, "post": True, "kernel_size": 3},
    "1 tap": {"kernel_size": 1, "first_kernel": 3},
}


def stack(**fields):
    network = WaveNetStack(1, 6, 5, 4, **{"context_channels": 3, "cycle": 3, "causal": True, **fields})
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return network.double()


def example(network, length=40, batch=2):
    context = torch.randn(batch, network.context_channels, length + 3).double() if network.context_channels else None
    return torch.randn(batch, 1, length).double(), context


def plain(network, x, context):
    """The published formulas, sigmoid and all, with every convolution padded on the left."""

    def convolve(layer, h, strict=False):
        past = layer.dilation[0] * (layer.kernel_size[0] - 1)
        h = F.pad(h, (past + 1, 0))[..., :-1] if strict else F.pad(h, (past, 0))
        return F.conv1d(h, layer.weight, layer.bias, dilation=layer.dilation, groups=layer.groups)

    c, count = network.channels, len(network.layers)
    h, skips = convolve(network.input, x, strict=True), 0
    for layer in network.layers:
        gates = convolve(layer.gates, h if layer.depthwise is None else convolve(layer.depthwise, h))
        if context is not None:
            gates = gates + convolve(layer.condition, context[..., : x.shape[-1]])
        mixed = convolve(layer.mix, torch.tanh(gates[:, :c]) * torch.sigmoid(gates[:, c:]))
        skips = skips + mixed[:, -c:]
        if mixed.shape[1] > c:
            h = (h + mixed[:, :c]) * (1 if network.residual_scale == 1 else math.sqrt(0.5))
    skips = skips if network.skip_scale == 1 else skips / math.sqrt(count)
    if network.post is not None:
        skips = F.relu(convolve(network.post, F.relu(skips)))
    return convolve(network.output, skips)


@pytest.mark.parametrize("form", FORMS)
def test_sees_only_what_comes_before(form):
    network = WaveNetStack(1, 6, 5, 4, **{"context_channels": 3, "cycle": 3, "causal": True, **FORMS[form]})
    x, context = example(network, 45)
    check_causal(network, x, context)


def test_sees_the_context_of_its_own_time_and_not_later():
    network = stack()
    x, context = example(network)
    context.requires_grad_()
    network(x, context)[:, :, 0, 20].sum().backward()
    seen = context.grad.abs().sum((0, 1)).nonzero()[:, 0]
    assert seen.max() == 20


@pytest.mark.parametrize("form", FORMS)
def test_equals_a_plain_writing_folded_too(form):
    network = stack(**FORMS[form])
    x, context = example(network)
    expected = plain(network, x, context)
    y = network(x, context)
    assert y.shape == (2, 6, 1, 40)
    torch.testing.assert_close(y[:, :, 0], expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(network.folded(torch.float64)(x, context), y, rtol=1e-10, atol=1e-12)
    single = network.float().folded(torch.bfloat16)
    low = single(x.float(), None if context is None else context.float())
    assert low.dtype == torch.float32 and (low - y).norm() < 0.05 * y.norm()


@pytest.mark.parametrize("form", FORMS)
def test_packed_weights_mean_what_they_say(form):
    network = stack(**FORMS[form])
    x, context = example(network, 20)
    expected = network(x, context)[:, :, 0]
    for w in (network.packed(), network.folded(torch.float32).packed()):
        c = w.first.shape[1]
        history = [torch.zeros(2, 0, c).double() for _ in w.dilations]
        for t in range(20):
            before = F.pad(x[:, 0], (len(w.first), 0))[:, t : t + len(w.first)]
            h = w.first_bias + before @ w.first
            skips = 0
            known = context[..., t] @ w.condition if context is not None else torch.zeros(2, w.condition.shape[1])
            for i, dilation in enumerate(w.dilations.tolist()):
                history[i] = torch.cat([history[i], h[:, None]], 1)
                g = w.gates_bias[i] + known[:, 2 * c * i : 2 * c * (i + 1)]
                for j in range(w.gates.shape[1]):
                    then = t - (w.gates.shape[1] - 1 - j) * dilation
                    g = g + (history[i][:, then] @ w.gates[i, j] if then >= 0 else 0)
                a, b = g[:, :c].tanh(), g[:, c:].tanh()
                m = w.mix_bias[i] + (a + a * b) @ w.mix[i]
                h, skips = w.residual * h + m[:, :c], skips + m[:, c:]
            if w.post1 is not None:
                skips = (w.post1_bias + skips.relu() @ w.post1).relu()
            y = w.post2_bias + skips @ w.post2
            torch.testing.assert_close(y.double(), expected[..., t], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("as_function", [False, True])
def test_stepper_goes_on_for_longer_than_it_looks_ahead(form, as_function):
    network = stack(**{**FORMS[form], "cycle": 0}) if form != "1 tap" else stack(**FORMS[form])
    network = (
        WaveNetStack(1, 6, 5, 8, kernel_size=2, context_channels=3, causal=True).double() if as_function else network
    )
    with torch.no_grad():
        network.output.weight.normal_()
    x, context = example(network, 300)
    expected = network(x, context)[:, :, 0]
    spans = []

    def given(start, stop):
        spans.append((start, stop))
        return context[..., start:stop]

    stepper = network.stepper(2, given if as_function and context is not None else context)
    for t in range(300):
        params = stepper.params()
        torch.testing.assert_close(params, expected[..., t], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(stepper.params(), params, rtol=0, atol=0)  # asking twice changes nothing
        stepper.push(x[:, 0, t])
    assert not as_function or [a for a, _ in spans] == list(range(0, 300, 64))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("folded", [False, True])
def test_block_by_block_equals_a_plain_writing(form, folded):
    """Blocks shorter than the past of a layer, equal to it and longer; of 1 sample; unequal ones."""
    network = stack(**FORMS[form])
    x, context = example(network, 60)
    expected = plain(network, x, context)
    for lengths in ([60], [1] * 60, [3, 8, 1, 20, 20, 8]):
        stream = (network.folded(torch.float64) if folded else network).stream(2)
        contexts = [None] * len(lengths) if context is None else context[..., :60].split(lengths, 2)
        y = torch.cat([stream.push(*both) for both in zip(x.split(lengths, 2), contexts, strict=True)], 3)
        torch.testing.assert_close(y[:, :, 0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_blocks_in_low_precision_are_near(dtype, tolerance):
    network = stack(scaled=True, first_kernel=5)
    x, context = example(network, 60)
    expected = plain(network, x, context)
    stream = network.float().folded(dtype).stream(2)
    blocks = zip(x.float().split(16, 2), context[..., :60].float().split(16, 2), strict=True)
    y = torch.cat([stream.push(*both) for both in blocks], 3)[:, :, 0]
    assert y.dtype == torch.float32 and (y - expected).norm() < tolerance * expected.norm()


def test_reach_is_how_far_back_an_output_sees():
    for fields in ({"kernel_size": 2, "first_kernel": 7}, {"kernel_size": 3}):
        network = stack(**fields, context_channels=0)
        x = torch.randn(1, 1, 60).double().requires_grad_()
        network(x)[0, :, 0, 50].sum().backward()
        seen = 50 - x.grad[0, 0].nonzero()[:, 0]
        assert seen.min() == 1 and seen.max() == network.reach == network.folded().reach


def test_gradients_reach_everything():
    network = stack(post=True, scaled=True, first_kernel=4)
    x, context = example(network)
    network(x, context).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_a_new_stack_gives_zero():
    network = WaveNetStack(1, 2, 8, 2, causal=True, post=True)
    assert not network(torch.randn(1, 1, 10)).any()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (2, 3), (3, 2)])
def test_causal_convolution_equals_the_masked_one(strict, taps, dilation):
    convolution = CausalConv1d(4, 6, taps, 1 if strict else dilation, strict=strict)
    feature = torch.zeros(1, dtype=torch.int64)
    masked = MaskedConv1d(feature.expand(4), feature.expand(6), taps + strict, convolution.dilation[0], strict)
    with torch.no_grad():
        masked.weight.copy_(convolution.weight)
        masked.bias.copy_(convolution.bias)
    x = torch.randn(2, 4, 20)
    torch.testing.assert_close(convolution(x[:, :, None])[:, :, 0], masked(x), rtol=1e-5, atol=1e-6)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="in_channels=1, got 2"):
        WaveNetStack(2, 2, 4, 2, causal=True)
    with pytest.raises(ValueError, match="only if causal"):
        WaveNetStack(1, 2, 4, 2, post=True)
    with pytest.raises(ValueError, match="only a causal WaveNetStack has packed weights"):
        WaveNetStack(1, 2, 4, 2).stepper(1)
    with pytest.raises(ValueError, match=r"context \(2, 3, T\), got None"):
        stack().stepper(2)
    with pytest.raises(ValueError, match=r"context \(2, 3, T\), got \(1, 3, 9\)"):
        stack().stepper(2, torch.zeros(1, 3, 9))
    with pytest.raises(ValueError, match=r"context \(B, 3, 40 or more\), got None"):
        stack()(torch.zeros(2, 1, 40).double())
    with pytest.raises(ValueError, match="positive sizes"):
        CausalConv1d(1, 1, 0)
    with pytest.raises(ValueError, match="only a causal WaveNetStack has packed weights"):
        WaveNetStack(1, 2, 4, 2).stream(1)
    with pytest.raises(ValueError, match=r"samples \(2, 1, n\), got \(1, 1, 9\)"):
        stack().stream(2).push(torch.zeros(1, 1, 9))
    with pytest.raises(ValueError, match=r"samples \(2, 1, n\), got \(2, 1, 0\)"):
        stack().stream(2).push(torch.zeros(2, 1, 0))
    with pytest.raises(ValueError, match=r"context \(2, 3, 9\), got None"):
        stack().stream(2).push(torch.zeros(2, 1, 9))
    with pytest.raises(ValueError, match=r"context \(2, 3, 9\), got \(2, 3, 8\)"):
        stack().stream(2).push(torch.zeros(2, 1, 9), torch.zeros(2, 3, 8))
    stepper = stack().stepper(1, torch.zeros(1, 3, 64).double())
    for _ in range(64):
        stepper.push(torch.zeros(1))
    with pytest.raises(ValueError, match="a context of 64 samples, and more were asked for"):
        stepper.params()

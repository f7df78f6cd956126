"""The gated stack against a plain writing of it, folded and ragged."""

import pytest
import torch
import torch.nn.functional as F

from waveflow.context import Ragged
from waveflow.networks import ChannelsLastConv1d, LinearUpsampler, TransposedUpsampler, WaveNetStack


def perturbed(module, std=0.1):
    with torch.no_grad():
        for p in module.parameters():
            p.add_(std * torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
    return module


def stack(separable=False, context_channels=5, **kwargs):
    return perturbed(WaveNetStack(3, 4, 8, 4, 3, context_channels, cycle=3, separable=separable, **kwargs)).double()


def plain(network, x, context):
    """The stack in F.conv1d, tanh and sigmoid, with the skip sum kept."""
    h, skips = F.conv1d(x, network.input.weight, network.input.bias), 0
    for i, layer in enumerate(network.layers):
        d = 2 ** (i % 3)
        if layer.depthwise is None:
            gates = F.conv1d(h, layer.gates.weight, layer.gates.bias, padding=d, dilation=d)
        else:
            gates = F.conv1d(h, layer.depthwise.weight, layer.depthwise.bias, padding=d, dilation=d, groups=8)
            gates = F.conv1d(gates, layer.gates.weight, layer.gates.bias)
        if context is not None:
            gates = gates + F.conv1d(context[..., : x.shape[-1]], layer.condition.weight, layer.condition.bias)
        mixed = F.conv1d(torch.tanh(gates[:, :8]) * torch.sigmoid(gates[:, 8:]), layer.mix.weight, layer.mix.bias)
        skips = skips + mixed[:, -8:]
        if i < 3:
            h = h + mixed[:, :8]
    return F.conv1d(skips, network.output.weight, network.output.bias)


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("context_channels", [0, 5])
@pytest.mark.parametrize("length", [1, 6, 40])
def test_equals_a_plain_writing_and_its_folded_form(separable, context_channels, length):
    network = stack(separable, context_channels)
    x = torch.randn(2, 3, length, dtype=torch.float64)
    context = torch.randn(2, 5, length + 7, dtype=torch.float64) if context_channels else None
    expected = plain(network, x, context)
    torch.testing.assert_close(network(x, context), expected, rtol=1e-10, atol=1e-12)
    folded = network.folded(torch.float64)
    torch.testing.assert_close(folded(x, context), expected, rtol=1e-6, atol=1e-7)  # its output bias is float32
    low = network.folded(torch.bfloat16)(x, context)
    assert (low - expected).norm() < 0.05 * expected.norm()
    assert low.dtype == torch.float32


def test_large_inputs_take_the_same_value():
    """Above some size a 1x1 convolution goes another way, by a dilation that a single tap ignores."""
    conv = ChannelsLastConv1d(64, 8)
    x = torch.randn(1, 64, 1, 1000)
    torch.testing.assert_close(conv(x)[:, :, 0], F.conv1d(x[:, :, 0], conv.weight, conv.bias), rtol=1e-4, atol=1e-5)


def test_a_new_stack_gives_zero():
    assert not WaveNetStack(3, 4, 8, 2)(torch.randn(1, 3, 10)).any()


@pytest.mark.parametrize("separable", [False, True])
def test_reach_is_how_far_an_output_sees(separable):
    network = stack(separable, 0)
    x = torch.randn(1, 3, 61, dtype=torch.float64, requires_grad=True)
    network(x)[0, :, 30].sum().backward()
    seen = x.grad[0].abs().sum(0).nonzero()[:, 0] - 30
    assert network.reach == seen.max() == -seen.min() == 1 + 2 + 4 + 1
    assert network.folded().reach == network.reach


@pytest.mark.parametrize("folded", [False, True])
def test_ragged_items_come_out_as_if_alone(folded):
    network = stack()
    call = network.folded(torch.float64) if folded else network
    x, context = torch.randn(2, 3, 20, dtype=torch.float64), torch.randn(2, 5, 20, dtype=torch.float64)
    together = call(x, Ragged.from_lengths(context, torch.tensor([20, 11])))
    torch.testing.assert_close(together[0], call(x[:1], context[:1])[0])
    torch.testing.assert_close(together[1, :, :11], call(x[1:, :, :11], context[1:, :, :11])[0])


def test_wrong_context_is_named():
    with pytest.raises(ValueError, match=r"context \(B, 5, 20 or more\), got \(2, 5, 19\)"):
        stack()(torch.randn(2, 3, 20).double(), torch.randn(2, 5, 19).double())
    with pytest.raises(ValueError, match="got None"):
        stack()(torch.randn(2, 3, 20).double())
    with pytest.raises(ValueError, match="odd kernel_size, got 2"):
        ChannelsLastConv1d(1, 1, 2)


@pytest.mark.parametrize(("hop", "group", "kernel"), [(256, 8, 1024), (12, 4, 24), (12, 12, 12)])
def test_transposed_upsampler_is_the_transposed_convolution_folded(hop, group, kernel):
    upsampler = TransposedUpsampler(5, hop, group, kernel).double()
    mel = torch.randn(2, 5, 7, dtype=torch.float64)
    samples = upsampler.convolution(mel)[..., : 7 * hop]
    expected = samples.unfold(2, group, group).permute(0, 1, 3, 2).flatten(1, 2)
    torch.testing.assert_close(upsampler(mel), expected)


@pytest.mark.parametrize("centered", [True, False])
def test_linear_upsampler_interpolates_between_frame_centres(centered):
    upsampler = LinearUpsampler(1, 1, hop_length=8, group=2, centered=centered, kernel_size=1).double()
    with torch.no_grad():
        upsampler.convolution.weight.fill_(2.5)  # undoes the standardisation
        upsampler.convolution.bias.fill_(-5.0)
    mel = torch.tensor([[[0.0, 8.0, 16.0, 24.0]]], dtype=torch.float64)  # frame f holds the sample it is centred on
    offset = 0 if centered else 4
    centres = torch.arange(16, dtype=torch.float64) * 2 + 1 - offset
    torch.testing.assert_close(upsampler(mel)[0, 0], centres.clamp(0, 24))


@pytest.mark.parametrize("upsampler", [TransposedUpsampler(5, 8, 2, 16), LinearUpsampler(5, 6, 8, 2)])
def test_upsamplers_take_ragged_batches_and_know_their_reach(upsampler):
    upsampler = upsampler.double()
    mel = torch.randn(2, 5, 9, dtype=torch.float64)
    together = upsampler(Ragged.from_lengths(mel, torch.tensor([9, 4])))
    torch.testing.assert_close(together.values[1:, :, :16], upsampler(mel[1:, :, :4]))
    assert not together.values[1, :, 16:].any() and together.mask.shape == (2, 1, 36)
    mel.requires_grad_()
    upsampler(mel)[0, :, 16:20].sum().backward()  # the groups of frame 4
    seen = mel.grad[0].abs().sum(0).nonzero()[:, 0] - 4
    before, after = upsampler.reach
    assert -before <= seen.min() and seen.max() <= after


def test_upsamplers_refuse_sizes_that_do_not_divide():
    with pytest.raises(ValueError, match="group 3, hop_length 8"):
        TransposedUpsampler(5, 8, 3, 16)
    with pytest.raises(ValueError, match="divides hop_length 8, got 3"):
        LinearUpsampler(5, 6, 8, 3)


def test_interpolation_keeps_its_place_under_bfloat16_autocast():
    upsampler = LinearUpsampler(1, 1, hop_length=8, group=2, kernel_size=1)
    with torch.no_grad():
        upsampler.convolution.weight.fill_(2.5)
        upsampler.convolution.bias.fill_(-5.0)
    mel = torch.zeros(1, 1, 1000)
    mel[..., ::2] = 1  # exact in bfloat16: an error would come from the places
    exact = upsampler(mel)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (upsampler(mel) - exact).abs().max() < 0.05


@pytest.mark.parametrize("separable", [False, True])
def test_folds_where_the_stack_is(separable):
    """A stack on another device folds there; "meta" stands for one, since mixing devices is an error with it too."""
    folded = WaveNetStack(3, 4, 8, 4, 3, 5, separable=separable).to("meta").folded(torch.bfloat16)
    assert {t.device.type for t in folded.buffers()} == {"meta"}


def test_folds_single_taps():
    network = perturbed(WaveNetStack(3, 4, 8, 3, kernel_size=1)).double()
    x = torch.randn(1, 3, 9, dtype=torch.float64)
    torch.testing.assert_close(network.folded(torch.float64)(x), network(x), rtol=1e-6, atol=1e-7)


def test_ragged_without_context_channels():
    network = stack(context_channels=0)
    x = torch.randn(2, 3, 20, dtype=torch.float64)
    together = network(x, Ragged.from_lengths(torch.zeros(2, 1, 20, dtype=torch.float64), torch.tensor([20, 11])))
    torch.testing.assert_close(together[1, :, :11], network(x[1:, :, :11])[0])

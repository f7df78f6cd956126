"""Masked convolutions against masks written out and convolutions with whole kernels."""

import pytest
import torch
import torch.nn.functional as F

from waveflow.networks.masked_conv import MaskedConv1d, MaskedConv2d, colours_of, raster, rows, tap_mask

ONE = torch.zeros(1, dtype=torch.int64)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def known(tap: tuple[int, int], middle: tuple[int, int], in_colour: int, out_colour: int, strict: bool) -> bool:
    """The rule in words: rows above, then pixels to the left, then colours before (mask A) or up to one's own (B)."""
    if tap[0] != middle[0]:
        return tap[0] < middle[0]
    if tap[1] != middle[1]:
        return tap[1] < middle[1]
    return in_colour < out_colour if strict else in_colour <= out_colour


@pytest.mark.parametrize(("strict", "own"), [(True, 0), (False, 1)])
def test_masks_of_one_colour_are_those_of_the_paper(strict, own):
    expected = [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, own, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert tap_mask(ONE, ONE, raster(5, 5), 12, strict)[0, 0].int().tolist() == expected


@pytest.mark.parametrize("strict", [False, True])
def test_red_green_blue(strict):
    rgb = torch.arange(3)
    own_pixel = tap_mask(rgb, rgb, raster(3, 3), 4, strict)[:, :, 1, 1].int().tolist()
    sees_nothing, sees_red, sees_red_and_green, sees_all = [0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]
    expected = [sees_nothing, sees_red, sees_red_and_green] if strict else [sees_red, sees_red_and_green, sees_all]
    assert own_pixel == expected


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (1, 5), (5, 3), (7, 7)])
@pytest.mark.parametrize("colours", [2, 3])
def test_every_weight_follows_the_rule(kernel, colours, strict):
    ins, outs = colours_of(4, colours), colours_of(5, colours).flip(0)
    places, middle = raster(*kernel), (kernel[0] // 2, kernel[1] // 2)
    mask = tap_mask(ins, outs, places, int(places[middle]), strict)
    for o, i, a, b in torch.cartesian_prod(*map(torch.arange, mask.shape)).tolist():
        assert mask[o, i, a, b] == known((a, b), middle, ins[i], outs[o], strict)


def whole_kernel(conv: MaskedConv2d, kernel: tuple[int, int], masked_rows: bool) -> torch.Tensor:
    """The kernel (out, in, height, width) with all taps, zero where a loop over the rule finds a weight unknown."""
    weight = torch.zeros(conv.out_channels, conv.in_channels, *kernel)
    middle = kernel[0] // 2, kernel[1] // 2
    left, _, top, _ = conv.margins
    for a in range(conv.weight.shape[2]):
        for b in range(conv.weight.shape[3]):
            tap = middle[0] - top + a, middle[1] - left + b
            weight[:, :, *tap] = conv.weight[:, :, a, b].detach()
    for o, i, a, b in torch.cartesian_prod(*map(torch.arange, weight.shape)).tolist():
        allowed = known((a, b), middle, conv.in_colours[i], conv.out_colours[o], conv.strict)
        if masked_rows:
            allowed = a < middle[0] if conv.strict else a <= middle[0]
        if not allowed:
            weight[o, i, a, b] = 0
    return weight


@pytest.mark.parametrize(
    ("kernel", "colours", "strict", "by_rows", "stored"),
    [
        ((7, 7), 1, True, False, (4, 7)),
        ((3, 3), 3, True, False, (2, 3)),
        ((3, 3), 3, False, False, (2, 3)),
        ((1, 5), 1, True, False, (1, 2)),
        ((1, 5), 3, True, False, (1, 3)),
        ((1, 1), 2, False, False, (1, 1)),
        ((5, 3), 1, False, False, (3, 3)),
        ((5, 5), 1, True, True, (2, 5)),
        ((5, 5), 1, False, True, (3, 5)),
    ],
)
def test_equals_a_convolution_with_the_whole_kernel(kernel, colours, strict, by_rows, stored):
    torch.manual_seed(0)
    places = rows(*kernel) if by_rows else raster(*kernel)
    conv = MaskedConv2d(colours_of(4, colours), colours_of(6, colours), places, strict)
    assert conv.weight.shape[2:] == stored
    x = random(2, 4, 5, 6)
    padding = kernel[0] // 2, kernel[1] // 2
    expected = F.conv2d(x, whole_kernel(conv, kernel, by_rows), conv.bias, padding=padding)
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("colours", [1, 2])
def test_causal_convolution_equals_a_loop_over_times(colours, strict, dilation):
    torch.manual_seed(0)
    ins, outs = colours_of(2, colours), colours_of(3, colours)
    conv = MaskedConv1d(ins, outs, kernel_size=3, dilation=dilation, strict=strict)
    x = random(2, 2, 11)
    expected = conv.bias.detach()[None, :, None].repeat(2, 1, 11)
    taps = range(0, 2) if strict and colours == 1 else range(0, 3)
    for t in range(11):
        for tap, weight in zip(taps, conv.weight.detach().unbind(2), strict=True):
            past = t - (2 - tap) * dilation
            for o in range(3):
                for i in range(2):
                    seen = past < t or (ins[i] < outs[o] if strict else ins[i] <= outs[o])
                    if past >= 0 and seen:
                        expected[:, o, t] += weight[o, i] * x[:, i, past]
    torch.testing.assert_close(conv(x), expected)


def test_hidden_channels_are_shared_out_evenly():
    for channels in range(3, 20):
        counts = torch.bincount(colours_of(channels, 3))
        assert counts.max() - counts.min() <= 1 and counts.sum() == channels


@pytest.mark.parametrize("make", [lambda: MaskedConv1d(ONE, ONE, 3, 2), lambda: MaskedConv2d(ONE, ONE, raster(3, 3))])
def test_masked_weights_have_no_gradient_and_changes_are_followed(make):
    conv = make()
    x = random(2, 1, *([7] * (conv.weight.ndim - 2)))
    conv(x).square().sum().backward()
    mask = torch.ones_like(conv.weight, dtype=torch.bool) if conv.mask is None else conv.mask
    assert torch.equal(conv.weight.grad != 0, mask)
    with torch.no_grad():
        before = conv.eval()(x)
        conv.weight.mul_(2)
        torch.testing.assert_close(conv(x) - conv.bias.reshape(1, 1, *[1] * (x.ndim - 2)), 2 * (before - conv.bias))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MaskedConv2d(ONE, ONE, raster(3, 4)), r"kernel of odd sizes, got \(3, 4\)"),
        (lambda: MaskedConv2d(ONE, ONE, raster(1, 1), strict=True), r"something to see, got a kernel \(1, 1\)"),
        (lambda: MaskedConv2d(ONE, ONE, rows(1, 3), strict=True), r"something to see, got a kernel \(1, 3\)"),
        (lambda: MaskedConv1d(ONE, ONE, 0), "positive sizes, got kernel_size=0"),
        (lambda: MaskedConv1d(ONE, ONE, 2, 0), "dilation=0"),
        (lambda: MaskedConv1d(ONE, ONE, 1, strict=True), r"something to see, got a kernel \(1,\)"),
        (lambda: colours_of(2, 3), "at least as many as the colours, got 2 for 3"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

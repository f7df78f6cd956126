"""The upsampler of ClariNet and WaveFlow against a plain sum, and what its samples depend on."""

import pytest
import torch

from waveflow.context import Ragged
from waveflow.networks import SpectrogramUpsampler


def moved(hop, n_mels=4):
    upsampler = SpectrogramUpsampler(n_mels, hop).double()
    with torch.no_grad():
        for p in upsampler.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    return upsampler


def naive(stage, x, stride):
    # Every input adds a stretch of 2 strides, around the middle of its own, to three bands.
    bands, frames = x.shape
    out = torch.full((bands + 2, (frames + 2) * stride), stage.bias.item(), dtype=x.dtype)
    for band in range(bands):
        for frame in range(frames):
            at = (frame + 1) * stride - stride // 2
            out[band : band + 3, at : at + 2 * stride] += x[band, frame] * stage.weight[0, 0]
    out = out[1:-1, stride : stride + frames * stride]
    return torch.where(out > 0, out, 0.4 * out)


@pytest.mark.parametrize(("hop", "strides"), [(256, (16, 16)), (12, (4, 3)), (300, (20, 15)), (7, (7, 1)), (2, (2, 1))])
def test_against_a_plain_sum(hop, strides):
    upsampler, mel = moved(hop), torch.randn(2, 4, 5).double()
    with torch.no_grad():
        out = upsampler(mel)
        expected = mel[1]
        for stage, stride in zip(upsampler.stages, strides, strict=True):
            expected = naive(stage, expected, stride)
    assert out.shape == (2, 4, 5 * hop)
    torch.testing.assert_close(out[1], expected)


@pytest.mark.parametrize("hop", [256, 12, 15, 7, 2])
def test_reach(hop):
    upsampler = moved(hop)
    mel = torch.randn(1, 4, 9).double().requires_grad_()
    out = upsampler(mel)[..., 4 * hop : 5 * hop]
    (gradient,) = torch.autograd.grad(out.abs().sum(), mel)
    before, after = upsampler.reach
    seen = gradient.abs().sum((0, 1)).nonzero().flatten().tolist()
    assert seen[0] >= 4 - before and seen[-1] <= 4 + after
    assert hop < 4 or seen == [3, 4, 5]


@torch.no_grad()
def test_ragged_items_are_upsampled_as_if_alone():
    upsampler, mel = moved(12), torch.randn(2, 4, 6).double()
    out, mask = upsampler(Ragged.from_lengths(mel, torch.tensor([6, 4])))
    torch.testing.assert_close(out[1:, :, :48], upsampler(mel[1:, :, :4]))
    assert mask.sum(2).flatten().tolist() == [72, 48] and not out[1, :, 48:].any()


def test_too_short_a_hop_is_named():
    with pytest.raises(ValueError, match="hop_length of at least 2, got 1"):
        SpectrogramUpsampler(80, 1)

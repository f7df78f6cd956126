"""From mel frames to the rate of a vocoder's samples, or groups of them."""

import math
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from waveflow.context import Context, Ragged

_MEL_MEAN, _MEL_STD = -5.0, 2.5


class TransposedUpsampler(nn.Module):
    """A transposed convolution to the sample rate, folded into groups (WaveGlow: arXiv:1811.00002, section 2.1).

    Channel ``c * group + i`` of the result holds band c at sample i of each group. Only the first ``frames *
    hop_length`` samples are made, so no output depends on a later frame. Computed as one matrix product over the
    ``kernel_size / hop_length`` frames that overlap, which gives channels-last memory at once.

    Args:
        n_mels: bands.
        hop_length: samples a frame.
        group: samples a group; divides ``hop_length``.
        kernel_size: taps, a multiple of ``hop_length``.

    Shape:
        ``(B, n_mels, frames)`` to ``(B, n_mels * group, frames * hop_length / group)``; ``Ragged`` to ``Ragged``.

    Raises:
        ValueError: if the sizes do not divide each other.
    """

    def __init__(self, n_mels: int, hop_length: int, group: int, kernel_size: int = 1024):
        super().__init__()
        if hop_length % group or kernel_size % hop_length:
            raise ValueError(
                "TransposedUpsampler expects a group that divides hop_length and a kernel_size that is a multiple of "
                f"it, got group {group}, hop_length {hop_length}, kernel_size {kernel_size}"
            )
        self.out_channels = n_mels * group
        self.group, self.hop_length = group, hop_length
        self.overlap = kernel_size // hop_length
        self.reach = (self.overlap - 1, 0)
        self.convolution = nn.ConvTranspose1d(n_mels, n_mels, kernel_size, stride=hop_length)

    def forward(self, mel: Context) -> Context:
        return _ragged(self, mel, self.hop_length // self.group)

    def upsample(self, mel: Tensor, mask: Tensor | None) -> Tensor:
        batch, n_mels, frames = mel.shape
        groups = self.hop_length // self.group
        # (in, out, overlap, groups, i) -> rows (overlap, in), columns (groups, out, i)
        weight = self.convolution.weight.reshape(n_mels, n_mels, self.overlap, groups, self.group)
        weight = weight.permute(2, 0, 3, 1, 4).reshape(self.overlap * n_mels, -1)
        bias = self.convolution.bias[:, None].expand(groups, n_mels, self.group).reshape(-1)
        padded = F.pad(mel.transpose(1, 2), (0, 0, self.overlap - 1, 0))
        past = [padded[:, self.overlap - 1 - i : self.overlap - 1 - i + frames] for i in range(self.overlap)]
        out = torch.cat(past, 2) @ weight + bias
        return out.reshape(batch, frames * groups, self.out_channels).transpose(1, 2)


class Knots(NamedTuple):
    """A context that is linear in time between frames.

    Attributes:
        frames: (B, C, F).
        left: (B, T), the frame before or at each time.
        right: (B, T), the one after it.
        weight: (T,), that of the right one.
    """

    frames: Tensor
    left: Tensor
    right: Tensor
    weight: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, C, T)."""
        return *self.frames.shape[:2], self.left.shape[1]

    def between(self, start: int, stop: int) -> Self:
        """The same at these times alone."""
        now = slice(start, stop)
        return self._replace(left=self.left[:, now], right=self.right[:, now], weight=self.weight[now])

    def interpolated(self) -> Tensor:
        """(B, C, T), in memory (B, T, C)."""
        frames = self.frames.transpose(1, 2)
        left, right = (
            frames.gather(1, index[:, :, None].expand(-1, -1, frames.shape[2])).to(self.weight.dtype)
            for index in (self.left, self.right)
        )
        return torch.lerp(left, right, self.weight[:, None].expand(-1, frames.shape[2])).transpose(1, 2)


class LinearUpsampler(nn.Module):
    """A convolution over frames, then linear interpolation to the centres of the groups.

    The bands are brought near mean 0 and variance 1 first, by constants that suit natural log-mels of speech.

    Args:
        n_mels: bands.
        channels: channels of the result.
        hop_length: samples a frame.
        group: samples a group; divides ``hop_length``.
        centered: whether frame f is centred on sample ``f * hop_length`` (else on the middle of its hop).
        kernel_size: frames that the convolution sees, odd.

    Shape:
        ``(B, n_mels, frames)`` to ``(B, channels, frames * hop_length / group)``; ``Ragged`` to ``Ragged``.

    Raises:
        ValueError: if the group does not divide the hop.
    """

    def __init__(
        self, n_mels: int, channels: int, hop_length: int, group: int, centered: bool = True, kernel_size: int = 5
    ):
        super().__init__()
        if hop_length % group:
            raise ValueError(f"LinearUpsampler expects a group that divides hop_length {hop_length}, got {group}")
        self.out_channels = channels
        self.group, self.hop_length = group, hop_length
        self.offset = 0.0 if centered else hop_length / 2
        self.reach = (kernel_size // 2 + 1, kernel_size // 2 + 1)
        self.convolution = nn.Conv1d(n_mels, channels, kernel_size, padding=kernel_size // 2)

    def forward(self, mel: Context) -> Context:
        return _ragged(self, mel, self.hop_length // self.group)

    def upsample(self, mel: Tensor, mask: Tensor | None) -> Tensor:
        return self.knots(mel, mask).interpolated()

    def knots(self, mel: Tensor, mask: Tensor | None = None) -> Knots:
        """What is interpolated, and how; with a mask (B, 1, frames) nothing comes from behind an item's end."""
        standardised = (mel - _MEL_MEAN) / _MEL_STD
        frames = self.convolution(standardised if mask is None else standardised * mask)
        batch, _, count = frames.shape
        lengths = torch.full((batch, 1), count, device=mel.device) if mask is None else mask.long().sum(2)
        last = (lengths - 1).clamp_min(0)
        centres = torch.arange(count * self.hop_length // self.group, device=mel.device) * self.group + self.group / 2
        # In float32 or wider: bf16 does not tell frames beyond 256 apart.
        position = ((centres - self.offset) / self.hop_length).to(torch.promote_types(frames.dtype, torch.float32))
        floor = position.floor()
        left, right = (
            torch.minimum(index.clamp_min(0).expand(batch, -1), last) for index in (floor.long(), floor.long() + 1)
        )
        return Knots(frames, left, right, position - floor)


class SpectrogramUpsampler(nn.Module):
    """Two small transposed convolutions over bands and frames to the sample rate (WaveFlow: arXiv:1912.01219).

    ClariNet's upsampler too (arXiv:1807.07281): the mel is a picture of one channel, each kernel is 3 bands high and
    two strides long and has weight norm, and a leaky ReLU of slope 0.4 follows each. The strides are the two factors of
    the hop length that are nearest to each other, the longer one first: 16 and 16 for a hop of 256.

    Args:
        n_mels: bands.
        hop_length: samples a frame, at least 2.

    Attributes:
        out_channels: bands.
        reach: frames before and after a frame on which its samples depend.

    Shape:
        ``(B, n_mels, frames)`` to ``(B, n_mels, frames * hop_length)``; ``Ragged`` to ``Ragged``.

    Raises:
        ValueError: for a shorter hop.

    Example:
        >>> SpectrogramUpsampler(80, 256)(torch.zeros(1, 80, 3)).shape
        torch.Size([1, 80, 768])
    """

    reach = (1, 1)

    def __init__(self, n_mels: int, hop_length: int):
        super().__init__()
        if hop_length < 2:
            raise ValueError(f"SpectrogramUpsampler expects a hop_length of at least 2, got {hop_length}")
        self.out_channels, self.hop_length = n_mels, hop_length
        short = next(s for s in range(math.isqrt(hop_length), 0, -1) if hop_length % s == 0)
        self.stages = nn.ModuleList(
            weight_norm(nn.ConvTranspose2d(1, 1, (3, 2 * s), stride=(1, s), padding=(1, s // 2)))
            for s in (hop_length // short, short)
        )

    def forward(self, mel: Context) -> Context:
        return _ragged(self, mel, self.hop_length)

    def upsample(self, mel: Tensor, mask: Tensor | None) -> Tensor:
        x = mel.unsqueeze(1)
        mask = None if mask is None else mask.unsqueeze(1)
        for stage in self.stages:
            stride = stage.stride[1]
            x = x if mask is None else x * mask
            x = F.leaky_relu(stage(x)[..., : x.shape[-1] * stride], 0.4)
            mask = None if mask is None else mask.repeat_interleave(stride, 3)
        return x.squeeze(1)


def _ragged(upsampler: nn.Module, mel: Context, rate: int) -> Context:
    if not isinstance(mel, Ragged):
        return upsampler.upsample(mel, None)
    values = upsampler.upsample(mel.values, mel.mask)
    mask = mel.mask.repeat_interleave(rate, 2)
    return Ragged(values * mask, mask)

"""A 1-D convolution laid out for the matrix units of today's processors."""

import torch.nn.functional as F
from torch import Tensor, nn

_ONEDNN_FROM = 20480  # elements of the input above which PyTorch gives a convolution of one item to oneDNN


class ChannelsLastConv1d(nn.Conv1d):
    """A "same" zero-padded, non-causal 1-D convolution of signals held as (B, C, 1, T) in channels-last memory.

    The parameters are those of ``nn.Conv1d``. With channels innermost every tap is a plain matrix product, which
    oneDNN and cuDNN run near their peak; see :func:`to_channels_last`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: number of taps, odd.
        dilation: distance of the taps.
        groups: as in ``nn.Conv1d``.

    Raises:
        ValueError: for an even kernel.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1, groups: int = 1):
        if kernel_size % 2 == 0:
            raise ValueError(f"ChannelsLastConv1d expects an odd kernel_size, got {kernel_size}")
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight.unsqueeze(2), self.bias, self.dilation[0], self.groups)


def to_channels_last(x: Tensor) -> Tensor:
    """(B, C, T) to (B, C, 1, T) with channels innermost in memory; free where they already are."""
    # By transposing: torch.func.vmap knows no memory formats.
    return x.transpose(1, 2).contiguous().transpose(1, 2).unsqueeze(2)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int = 1, groups: int = 1) -> Tensor:
    """Convolve x (B, C, 1, T) with weight (out, in, 1, k), zero-padded to the same length."""
    taps = weight.shape[-1]
    padding = dilation * (taps - 1) // 2
    if taps == 1 and x.device.type == "cpu" and x.numel() > _ONEDNN_FROM:
        # A single tap ignores dilation, but without it PyTorch on one thread passes oneDNN by, at half its speed.
        dilation = 2
    weight = weight.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias, padding=(0, padding), dilation=(1, dilation), groups=groups)

"""A causal 1-D convolution laid out for the matrix units of today's processors."""

import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.networks.convolution import convolve


class CausalConv1d(nn.Conv1d):
    """A convolution of signals held as (B, C, 1, T) in channels-last memory whose outputs see nothing later.

    The parameters are those of ``nn.Conv1d``, the last tap being the newest. Before its beginning a signal is zero.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: number of taps.
        dilation: distance of the taps.
        groups: as in ``nn.Conv1d``.
        strict: see only what comes before the output's own time (mask A).

    Raises:
        ValueError: for a size that is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 2,
        dilation: int = 1,
        groups: int = 1,
        strict: bool = False,
    ):
        if kernel_size < 1 or dilation < 1:
            raise ValueError(f"CausalConv1d expects positive sizes, got kernel_size={kernel_size}, dilation={dilation}")
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation, groups=groups)
        self.strict = strict

    def forward(self, x: Tensor) -> Tensor:
        return convolve_causally(x, self.weight.unsqueeze(2), self.bias, self.dilation[0], self.groups, self.strict)


def convolve_causally(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int = 1, groups: int = 1, strict: bool = False
) -> Tensor:
    """Convolve x (B, C, 1, T) with weight (out, in, 1, k) over what comes before, and unless strict what is now."""
    past = dilation * (weight.shape[-1] - 1)
    if strict:
        x = F.pad(x, (past + 1, -1))
    elif past:
        x = F.pad(x, (past, 0))
    if weight.shape[-1] == 1:
        return convolve(x, weight, bias, groups=groups)
    weight = weight.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias, dilation=(1, dilation), groups=groups)

"""The product of a batch and a weight matrix, by the fastest route that PyTorch has."""

import torch
import torch.nn.functional as F
from torch import Tensor

_ONEDNN_FROM = 2**22  # multiplications below which the way round costs more than it saves


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` for matrices: x (B, in), weight (out, in), bias (out,) to (B, out).

    On a CPU large float32 products are handed to oneDNN as convolutions of one tap: PyTorch gives ``F.linear`` to MKL,
    which reaches half of oneDNN's speed on AMD's processors and no more on others.
    """
    if (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * weight.shape[0] >= _ONEDNN_FROM
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    ):
        # A single tap ignores dilation, but without it PyTorch on one thread passes oneDNN by. Both operands are viewed
        # as channels-last images, of which this order of unsqueeze and movedim is a part: strides of 1-long axes count.
        rows = x.unsqueeze(1).unsqueeze(0).movedim(-1, 1)
        taps = weight.unsqueeze(1).unsqueeze(1).movedim(-1, 1)
        return F.conv2d(rows, taps, bias, dilation=(1, 2)).movedim(1, -1).reshape(x.shape[0], weight.shape[0])
    return F.linear(x, weight, bias)

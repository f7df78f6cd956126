"""The convolutional network of Glow's couplings."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.context import Context, Ragged
from waveflow.first_batch import FirstBatchScale
from waveflow.networks.convolution import convolve


class ZeroConv2d(nn.Module):
    r"""A 3x3 convolution that starts at zero, its outputs scaled by learned factors.

    .. math::
        y_c = \exp(3 s_c) (W_c * x + b_c)

    The factors let an output that has to become large do so in few steps (Glow: arXiv:1807.03039, section 3.3 and its
    code). A context is accepted and ignored: alone it is the conditioner of a prior.

    Args:
        in_channels: channels of x.
        out_channels: channels of y.

    Shape:
        x ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``, zero-padded.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.log_scale = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        # Scaling the weight instead of the result: it is the smaller of the two.
        scale = (3.0 * self.log_scale).exp()
        return F.conv2d(_channels_last(x), self.weight * scale[:, None, None, None], self.bias * scale, padding=1)


class CouplingNet(nn.Module):
    r"""3x3 convolution, 1x1 convolution, and a 3x3 convolution that starts at zero, with ReLUs between.

    .. math::
        h_1 = \mathrm{relu}(n_1(W_1 * x) + V c), \quad h_2 = \mathrm{relu}(n_2(W_2 h_1)), \quad
        y = \exp(3 s) (W_3 * h_2 + b)

    n is a scale and shift per channel that standardise the first training batch, or, without ``norm``, a bias. V starts
    at zero (Glow: arXiv:1807.03039, section 4 and its code; there the label enters through the top prior only).

    Args:
        in_channels: channels of x.
        out_channels: channels of y.
        hidden: width of the hidden layers.
        context: C, size of the context, e.g. number of classes of one-hot labels; 0 for none.
        norm: whether the hidden layers are standardised.

    Shape:
        x ``(B, in_channels, H, W)`` and context ``(B, C)`` to ``(B, out_channels, H, W)``.

    Raises:
        ValueError: if a size is not positive; (call) for a context that is missing or of another size.

    Example:
        >>> CouplingNet(6, 12, hidden=16)(torch.ones(2, 6, 4, 4)).abs().max().item()
        0.0
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int = 512, context: int = 0, norm: bool = True):
        super().__init__()
        if min(in_channels, out_channels, hidden) < 1 or context < 0:
            raise ValueError(
                "CouplingNet expects positive sizes, got "
                f"in_channels={in_channels}, out_channels={out_channels}, hidden={hidden}, context={context}"
            )
        self.context = context
        self.first = _NormedConv2d(in_channels, hidden, 3, norm)
        self.second = _NormedConv2d(hidden, hidden, 1, norm)
        self.last = ZeroConv2d(hidden, out_channels)
        self.by_context = nn.Parameter(torch.zeros(hidden, context)) if context else None

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        h = self.first(_channels_last(x))
        if self.by_context is not None:
            h = h + self._label_bias(context)
        h = self.second(F.relu(h, inplace=True))
        return self.last(F.relu(h, inplace=True))

    def _label_bias(self, context: Context) -> Tensor:
        if not isinstance(context, Tensor) or context.ndim != 2 or context.shape[1] != self.context:
            got = "a padded batch" if isinstance(context, Ragged) else context if context is None else context.shape
            raise ValueError(f"CouplingNet expects a context (B, {self.context}), got {got}")
        return (context @ self.by_context.T)[:, :, None, None]


class _NormedConv2d(nn.Module):
    """A convolution followed by a :class:`FirstBatchScale` or a bias, computed as one."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.norm = FirstBatchScale(out_channels) if norm else None
        self.bias = None if norm else nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is None:
            return self._convolve(x, self.weight, self.bias)
        if self.norm.awaits():
            with torch.no_grad():
                self.norm.initialize(self._convolve(x, self.weight, None))
        scale = self.norm.log_scale.exp()
        return self._convolve(x, self.weight * scale[:, None, None, None], self.norm.shift * scale)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if weight.shape[-1] == 1:
            return convolve(x, weight, bias)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


def _channels_last(x: Tensor) -> Tensor:
    """The same numbers with channels innermost in memory, where oneDNN and cuDNN are fastest."""
    # By transposing: torch.func.vmap knows no memory formats.
    return x.movedim(1, -1).contiguous().movedim(-1, 1)

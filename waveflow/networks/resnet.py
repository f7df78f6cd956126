"""A residual network of 3x3 convolutions over images, as RealNVP's couplings use it."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from waveflow.context import Context, Ragged


class ResNet(nn.Module):
    r"""Pre-activation residual blocks whose results all reach the output.

    .. math::
        h_0 = W * x + V c, \quad h_{l+1} = h_l + B_l(h_l), \quad y = O\, \mathrm{relu}\Big(\sum_l S_l h_l\Big)

    Each B is twice (normalisation,) ReLU, 3x3 convolution; V, S and O are 1x1 (RealNVP: arXiv:1605.08803, section 3.3
    and appendix B). W, S and those in B have weight norm; O starts at zero.

    Args:
        in_channels: channels of x.
        out_channels: channels of y.
        hidden: width of h.
        blocks: number of blocks.
        context: C, size of the context; 0 for none.
        batch_norm: whether there is batch normalisation before each ReLU. In training, the items of a batch then see
            each other, and each process normalises by what it has itself.

    Shape:
        x (B, in_channels, H, W) and context (B, C) or (B, C, H, W) to (B, out_channels, H, W).

    Raises:
        ValueError: if a size is not positive; (call) for a context that is missing, superfluous or of another size.

    Example:
        >>> import torch
        >>> ResNet(3, 6, hidden=8, blocks=2)(torch.zeros(2, 3, 4, 4)).shape
        torch.Size([2, 6, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int = 64,
        blocks: int = 2,
        context: int = 0,
        batch_norm: bool = False,
    ):
        super().__init__()
        if min(in_channels, out_channels, hidden, blocks) < 1 or context < 0:
            raise ValueError(
                f"ResNet expects positive sizes, got in_channels={in_channels}, out_channels={out_channels}, "
                f"hidden={hidden}, blocks={blocks}, context={context}"
            )
        self.context = context
        self.first = weight_norm(nn.Conv2d(in_channels, hidden, 3, padding=1))
        self.condition = nn.Conv2d(context, hidden, 1, bias=False) if context else None
        self.blocks = nn.ModuleList(_Block(hidden, batch_norm) for _ in range(blocks))
        self.skips = nn.ModuleList(weight_norm(nn.Conv2d(hidden, hidden, 1)) for _ in range(blocks + 1))
        self.norm = nn.BatchNorm2d(hidden) if batch_norm else nn.Identity()
        self.last = nn.Conv2d(hidden, out_channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        self._check_context(x, context)
        h = self.first(x)
        if context is not None:
            h = h + self.condition(context[..., None, None] if context.ndim == 2 else context)
        total = self.skips[0](h)
        for block, skip in zip(self.blocks, self.skips[1:], strict=True):
            h = h + block(h)
            total = total + skip(h)
        return self.last(F.relu(self.norm(total)))

    def _check_context(self, x: Tensor, context: Context) -> None:
        if context is None:
            if self.context:
                raise ValueError(f"ResNet expects a context of {self.context} channels, got None")
            return
        got = "a padded batch" if isinstance(context, Ragged) else tuple(context.shape)
        if not self.context:
            raise ValueError(f"ResNet expects no context, got {got}")
        if isinstance(context, Ragged) or context.shape[1:] not in ((self.context,), (self.context, *x.shape[2:])):
            raise ValueError(
                f"ResNet expects a context (B, {self.context}) or (B, {self.context}, {x.shape[2]}, {x.shape[3]}), "
                f"got {got}"
            )


class _Block(nn.Sequential):
    def __init__(self, channels: int, batch_norm: bool):
        layers = []
        for _ in range(2):
            layers += [nn.BatchNorm2d(channels)] if batch_norm else []
            layers += [nn.ReLU(), weight_norm(nn.Conv2d(channels, channels, 3, padding=1))]
        super().__init__(*layers)

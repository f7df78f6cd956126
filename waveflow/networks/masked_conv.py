"""Convolutions that see only what comes before, in one dimension or two, and within a place colour by colour."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.networks.masks import degree_mask


def colours_of(channels: int, colours: int) -> Tensor:
    """The colours of hidden channels, sorted: (channels,) integers 0 ... colours - 1, as even as can be.

    Raises:
        ValueError: for fewer channels than colours.

    Example:
        >>> colours_of(7, 3).tolist()
        [0, 0, 0, 1, 1, 2, 2]
    """
    if not 1 <= colours <= channels:
        raise ValueError(f"hidden channels expect to be at least as many as the colours, got {channels} for {colours}")
    return torch.arange(channels) * colours // channels


def raster(height: int, width: int) -> Tensor:
    """Places of a kernel's taps (height, width), row by row: what comes first in an image drawn pixel by pixel."""
    return torch.arange(height * width).reshape(height, width)


def rows(height: int, width: int) -> Tensor:
    """Places of a kernel's taps (height, width) where a row counts as one: for an image drawn row by row."""
    return torch.arange(height)[:, None].expand(height, width)


def tap_mask(in_colours: Tensor, out_colours: Tensor, places: Tensor, own: int, strict: bool) -> Tensor:
    r"""Which weights of a convolution look at what is already known.

    Degrees as in :func:`~waveflow.networks.masks.degree_mask`: that of a tap is its place, that of a channel its
    colour, and both make one integer, place * colours + colour. What is drawn earlier has the lower one.

    Args:
        in_colours: (in,) integers from 0.
        out_colours: (out,) integers from 0.
        places: (\*kernel) integers, the place of each tap in the order.
        own: the place of the output.
        strict: True for mask A (own colour and place unseen: the first layer), False for mask B (all other layers).

    Returns:
        (out, in, \*kernel) booleans, true where a weight is allowed.

    Example:
        >>> one = torch.zeros(1, dtype=torch.int64)
        >>> tap_mask(one, one, raster(3, 3), own=4, strict=True)[0, 0].int().tolist()
        [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    """
    colours = 1 + int(torch.cat([in_colours, out_colours]).max())
    in_degrees = in_colours.reshape(-1, *[1] * places.ndim) + places * colours
    return degree_mask(own * colours + out_colours, in_degrees, strict)


class MaskedConv2d(nn.Conv2d):
    """A convolution of images that keeps their size, masked by the places of its taps (van den Oord et al., 2016).

    Masks A and B of PixelRNN (arXiv:1601.06759) with ``raster`` places; the vertical stack of the Gated PixelCNN
    (arXiv:1606.05328) with ``rows``. Taps that nothing sees are not stored: a 7 x 7 kernel has 4 x 7 weights, or
    3 x 7 where its own row is masked too. Beyond its edges an image is zero.

    Args:
        in_colours: (in,) integers, the colour of each channel.
        out_colours: (out,) integers.
        places: (kernel height, kernel width) integers, of odd sizes, that grow to the right and downwards:
            ``raster(...)`` or ``rows(...)``. The output is at the place in the middle.
        strict: mask A instead of B, see :func:`tap_mask`.

    Shape:
        (B, in, H, W) to (B, out, H, W).

    Raises:
        ValueError: for an even kernel, or a mask that leaves nothing.
    """

    def __init__(self, in_colours: Tensor, out_colours: Tensor, places: Tensor, strict: bool = False):
        height, width = places.shape
        if height % 2 == 0 or width % 2 == 0:
            raise ValueError(f"MaskedConv2d expects a kernel of odd sizes, got {(height, width)}")
        middle = height // 2, width // 2
        mask = tap_mask(in_colours, out_colours, places, int(places[middle]), strict)
        (top, bottom), (left, right) = _bounds(mask, "MaskedConv2d")
        mask = mask[:, :, top : bottom + 1, left : right + 1]
        super().__init__(len(in_colours), len(out_colours), tuple(mask.shape[2:]))
        self.in_colours, self.out_colours, self.strict = in_colours, out_colours, strict
        self.margins = middle[1] - left, right - middle[1], middle[0] - top, bottom - middle[0]
        self.register_buffer("mask", None if mask.all() else mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.mask is None else self.weight * self.mask
        return F.conv2d(F.pad(x, self.margins) if any(self.margins) else x, weight, self.bias)


class MaskedConv1d(nn.Conv1d):
    """A causal convolution of signals that keeps their length: an output sees inputs up to its own time.

    Args:
        in_colours: (in,) integers, the colour of each channel: which of several numbers at a time comes first. All
            zero where a channel is a feature and no number to be predicted.
        out_colours: (out,) integers.
        kernel_size: number of taps, the last one at the output's own time.
        dilation: distance of the taps.
        strict: mask A instead of B, see :func:`tap_mask`; a last tap that is masked whole is not stored.

    Shape:
        (B, in, T) to (B, out, T).

    Raises:
        ValueError: if a size is not positive, or the mask leaves nothing.

    Example:
        >>> feature = torch.zeros(1, dtype=torch.int64)
        >>> past = MaskedConv1d(feature, feature, kernel_size=3, dilation=4, strict=True)
        >>> past(torch.zeros(1, 1, 20)).shape, past.weight.shape
        (torch.Size([1, 1, 20]), torch.Size([1, 1, 2]))
    """

    def __init__(
        self, in_colours: Tensor, out_colours: Tensor, kernel_size: int = 2, dilation: int = 1, strict: bool = False
    ):
        if kernel_size < 1 or dilation < 1:
            raise ValueError(f"MaskedConv1d expects positive sizes, got kernel_size={kernel_size}, dilation={dilation}")
        times = torch.arange(kernel_size)
        mask = tap_mask(in_colours, out_colours, times, kernel_size - 1, strict)
        ((first, last),) = _bounds(mask, "MaskedConv1d")
        mask = mask[..., first : last + 1]
        super().__init__(len(in_colours), len(out_colours), mask.shape[-1], dilation=dilation)
        self.in_colours, self.out_colours, self.strict = in_colours, out_colours, strict
        self.margins = dilation * (kernel_size - 1 - first), dilation * (last + 1 - kernel_size)
        self.register_buffer("mask", None if mask.all() else mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.mask is None else self.weight * self.mask
        return F.conv1d(F.pad(x, self.margins), weight, self.bias, dilation=self.dilation)


def _bounds(mask: Tensor, name: str) -> list[tuple[int, int]]:
    # First and last tap along each axis of the kernel at which any weight is allowed.
    taps = mask.flatten(0, 1).any(0)
    if not taps.any():
        raise ValueError(f"{name} expects a mask that leaves something to see, got a kernel {tuple(taps.shape)}")
    return [(int(axis.min()), int(axis.max())) for axis in taps.nonzero().unbind(1)]

"""Networks over images run number by number: what is cached, and the few products that a step takes."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from waveflow.networks.masked_conv import MaskedConv2d
from waveflow.networks.pixel_stack import PixelStack


class PixelStepper:
    """Counts rows, columns and colours for a network that is run number by number, without gradients.

    A subclass writes ``_prepare`` (read the weights, give the step that sees the image itself), ``_start_row`` and
    ``_step``, which gives the outputs (B, P) for the colour of a column.

    Args:
        stack: the network; its weights are read now.
        batch: B.
        context: (B, classes), or None.
    """

    def __init__(self, stack: PixelStack, batch: int, context: Tensor | None = None):
        self.batch = batch
        self._colours, self._height, self._width = stack.event_shape
        self._row = self._column = self._colour = 0
        self._device = stack.last.weight.device
        if context is not None:
            context = context.to(stack.last.weight.dtype)
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            self._image = self._prepare(stack, context)
            self._advance()

    def params(self) -> Tensor:
        """Parameters of the next number in order, (B, P)."""
        return self._params

    def push(self, x: Tensor) -> None:
        """Tell the next number in order, (B,)."""
        self._image.slots[self._column][self._colour][:, 0] = x.detach()
        self._colour += 1
        if self._colour == self._colours:
            self._colour, self._column = 0, self._column + 1
        if self._column == self._width:
            self._column, self._row = 0, self._row + 1
        if self._row == self._height:
            return
        if torch.is_autocast_enabled(self._device.type):
            with torch.autocast(self._device.type, enabled=False):
                self._advance()
        else:  # not even a context is entered, at a price that so small steps would feel
            self._advance()

    def _advance(self) -> None:
        if self._column == self._colour == 0:
            self._start_row()
        self._params = self._step(self._column, self._colour)

    def _prepare(self, stack: PixelStack, context: Tensor | None) -> "RasterStep":
        raise NotImplementedError

    def _start_row(self) -> None:
        raise NotImplementedError

    def _step(self, column: int, colour: int) -> Tensor:
        raise NotImplementedError


class RowConvolution:
    """A convolution that is given an image row by row and keeps the rows that its kernel spans.

    Args:
        weight: (out, in, rows, columns).
        left: columns of the kernel to the left of the output's.
        batch: B.
        width: W.
    """

    def __init__(self, weight: Tensor, left: int, batch: int, width: int):
        _, inputs, height, columns = weight.shape
        # Channels last, as in every step: the row of a cache is then a matrix.
        self._weight = weight.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        self._cache = weight.new_zeros(batch, height, width + columns - 1, inputs)
        self._own = slice(left, left + width)

    def __call__(self, row: Tensor) -> Tensor:
        """The next row (B, W, in), seen as the kernel's lowest, to (B, W, out)."""
        self._cache[:, :-1] = self._cache[:, 1:].clone()
        self._cache[:, -1, self._own] = row
        return F.conv2d(self._cache.permute(0, 3, 1, 2), self._weight).permute(0, 2, 3, 1)[:, 0]


class RasterStep:
    """A masked convolution in raster order, one colour of one pixel at a time.

    Every product is of a block of the weight, dense: what lies to the left in the row is one piece of memory, and
    sorted by colour so is what is known of the pixel itself.

    Args:
        conv: the convolution; the colours of its inputs must be sorted.
        batch: B.
        width: W.
        colours: C.
        label: (B, out), added to the output; or None.
        scale: (out,), by which the output is multiplied; or None.

    Attributes:
        parts: for each colour, where its outputs stand once they are sorted by colour.
        order: (out,), by which outputs are sorted.
        slots: for each column and colour, where the inputs (B, in of that colour) are to be written.
        terms: (B, W, out sorted), what a row adds to the outputs: made by ``start_row`` from the rows above, or
            written from outside where the kernel is one row high.
    """

    def __init__(
        self,
        conv: MaskedConv2d,
        batch: int,
        width: int,
        colours: int,
        label: Tensor | None = None,
        scale: Tensor | None = None,
    ):
        self.order, self.parts = _sorted(conv.out_colours, colours)
        _, inputs = _sorted(conv.in_colours, colours)
        weight, bias = conv.weight.detach(), conv.bias.detach().expand(batch, -1)
        bias = bias if label is None else bias + label
        if scale is not None:
            weight, bias = weight * scale[:, None, None, None], bias * scale
        weight, self._bias = weight[self.order], bias[:, None, self.order]
        left = conv.margins[0]
        own = weight[:, :, -1, : left + 1].transpose(1, 2).flatten(1)
        self._above = RowConvolution(weight[:, :, :-1], left, batch, width) if weight.shape[2] > 1 else None
        self._row = weight.new_zeros(batch, left + width, conv.in_channels)
        self._pixels = self._row[:, left:]
        self.terms = weight.new_empty(batch, width, conv.out_channels)
        flat, count = self._row.flatten(1), conv.in_channels
        self.slots = [[self._pixels[:, j, part] for part in inputs] for j in range(width)]
        ends = [part.start if conv.strict else part.stop for part in inputs]
        known = [left * count + end for end in ends]
        self._blocks = [own[part, :end].t().contiguous() for part, end in zip(self.parts, known, strict=True)]
        self._steps = [
            [
                (self.terms[:, j, part], flat[:, j * count : j * count + end], block)
                for part, end, block in zip(self.parts, known, self._blocks, strict=True)
            ]
            for j in range(width)
        ]

    @property
    def finished_row(self) -> Tensor:
        """The row (B, W, in) that was last completed; zeros before the first."""
        return self._pixels

    def start_row(self) -> None:
        """Look at the rows above."""
        if self._above is None:
            self.terms.copy_(self._bias.expand_as(self.terms))
        else:
            torch.add(self._above(self._pixels), self._bias, out=self.terms)

    def step(self, column: int, colour: int, out: Tensor) -> Tensor:
        """Outputs of a colour (B, out of that colour), once its inputs are in their slots."""
        return torch.addmm(*self._steps[column][colour], out=out)


class PointStep:
    """A masked 1 x 1 convolution, one colour at a time.

    Args:
        conv: the convolution; the colours of its inputs must be sorted, and its mask be B.
        batch: B.
        colours: C.
        factor: by which the inputs are too large.

    Attributes:
        slots: for each colour, where the inputs (B, in of that colour) are to be written.
    """

    def __init__(self, conv: MaskedConv2d, batch: int, colours: int, factor: float = 1.0):
        order, parts = _sorted(conv.out_colours, colours)
        _, inputs = _sorted(conv.in_colours, colours)
        weight, bias = conv.weight.detach()[order, :, 0, 0] / factor, conv.bias.detach()[order]
        # The bias is the weight of an input that is always one, so that it costs no step of its own.
        weight = torch.cat([bias[:, None], weight], 1)
        pixel = weight.new_ones(batch, weight.shape[1])
        self.slots = [pixel[:, 1 + part.start : 1 + part.stop] for part in inputs]
        self._steps = [
            (pixel[:, : 1 + part.stop], weight[out, : 1 + part.stop].t().contiguous())
            for part, out in zip(inputs, parts, strict=True)
        ]

    def step(self, colour: int, out: Tensor | None = None) -> Tensor:
        """Outputs of a colour (B, out of that colour), once its inputs are in their slots."""
        return torch.mm(*self._steps[colour], out=out)

    def add(self, colour: int, to: Tensor, out: Tensor | None = None) -> Tensor:
        """The same, added to a tensor."""
        return torch.addmm(to, *self._steps[colour], out=to if out is None else out)


def _sorted(colours: Tensor, count: int) -> tuple[Tensor, list[slice]]:
    # The order that sorts channels by colour, and where each colour then stands.
    order = colours.argsort(stable=True)
    ends = [0, *torch.bincount(colours, minlength=count).cumsum(0).tolist()]
    return order, [slice(a, b) for a, b in pairwise(ends)]

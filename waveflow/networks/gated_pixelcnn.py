"""Gated PixelCNN: two stacks of convolutions over an image that together see everything before a pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.networks.gate import WIDE, gate_factors, gated
from waveflow.networks.masked_conv import MaskedConv2d, colours_of, raster, rows
from waveflow.networks.pixel_stack import PixelStack
from waveflow.networks.pixel_stepper import PixelStepper, PointStep, RasterStep, RowConvolution


class GatedPixelCNNStack(PixelStack):
    r"""The network of Gated PixelCNN (van den Oord et al., 2016; arXiv:1606.05328, figure 2).

    In each layer a vertical convolution, k x k, sees the rows above and a horizontal one, 1 x k, what is to the left;
    the vertical one is added to the horizontal one through a 1 x 1, and of both

    .. math::
        y = \tanh(a + V_a c) \odot \sigma(b + V_b c)

    with the label c. The horizontal stack is residual. Its masks are those of
    :class:`~waveflow.networks.PixelCNNStack`; the vertical stack needs no colours, since rows above are known whole.
    Two 1 x 1 after ReLUs follow and the output, which starts at zero. There is no blind spot: with enough layers
    everything before a number is seen.

    Args:
        shape: (C, H, W) of the images.
        outputs: P, numbers for each number of the image.
        hidden: channels of either stack; divided evenly among the colours in the horizontal one.
        layers: number of gated layers, the first one included.
        kernel: k, odd.
        first_kernel: k of the first layer, odd.
        context: number of classes, given as one-hot (B, context); 0 for none.

    Shape:
        x (B, C, H, W), best within [-1, 1], and context (B, classes) to (B, P, C, H, W).

    Raises:
        ValueError: if a size is not positive, a kernel even or below 3, or ``hidden`` below C; (call) for images of
            another size, or a context that is missing, superfluous or of another size.

    Example:
        >>> stack = GatedPixelCNNStack((3, 8, 8), outputs=2, hidden=12, layers=2)
        >>> stack(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 2, 3, 8, 8])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int = 2,
        hidden: int = 64,
        layers: int = 7,
        kernel: int = 3,
        first_kernel: int = 7,
        context: int = 0,
    ):
        super().__init__(shape, outputs, context)
        colours = shape[0]
        if layers < 1 or hidden < colours or min(kernel, first_kernel) < 3:
            raise ValueError(
                f"GatedPixelCNNStack expects hidden of at least {colours} colours, layers from 1 and kernels from 3, "
                f"got hidden={hidden}, layers={layers}, kernel={kernel}, first_kernel={first_kernel}"
            )
        inputs, stream = torch.arange(colours), colours_of(hidden, colours)
        self.layers = nn.ModuleList(
            _GatedLayer(stream if k else inputs, stream, kernel if k else first_kernel, context, first=k == 0)
            for k in range(layers)
        )
        self.head = nn.ModuleList(MaskedConv2d(stream, stream, raster(1, 1)) for _ in range(2))
        self.last = MaskedConv2d(stream, inputs.repeat(outputs), raster(1, 1))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self._checked(x)
        self._check_context(context)
        if context is not None:
            context = context.to(self.last.weight.dtype)
        above = left = x
        for layer in self.layers:
            above, left = layer(above, left, context)
        for layer in self.head:
            left = layer(F.relu(left))
        return self.last(F.relu(left)).unflatten(1, (self.outputs, self.event_shape[0]))

    def stepper(self, batch: int, context: Tensor | None = None) -> "GatedPixelCNNStepper":
        """The same function number by number, without gradients; all steps together cost about one pass."""
        self._check_context(context)
        return GatedPixelCNNStepper(self, batch, context)


class _GatedLayer(nn.Module):
    def __init__(self, inputs: Tensor, stream: Tensor, kernel: int, context: int, first: bool):
        super().__init__()
        gates, no_colour = stream.repeat(2), torch.zeros_like
        self.first = first
        self.vertical = MaskedConv2d(no_colour(inputs), no_colour(gates), rows(kernel, kernel), strict=first)
        self.to_horizontal = nn.Conv2d(len(gates), len(gates), 1, bias=False)
        self.horizontal = MaskedConv2d(inputs, gates, raster(1, kernel), strict=first)
        self.out = MaskedConv2d(stream, stream, raster(1, 1))
        self.labels = nn.ModuleList(nn.Linear(context, len(gates), bias=False) for _ in range(2 if context else 0))
        self.register_buffer("factors", gate_factors(len(stream)), persistent=False)

    def forward(self, above: Tensor, left: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        vertical = self.vertical(above)
        horizontal = self.horizontal(left)
        if context is not None:
            vertical = vertical + self.labels[0](context)[..., None, None]
            horizontal = horizontal + self.labels[1](context)[..., None, None]
        horizontal = self.out(self._gate(horizontal + self.to_horizontal(vertical)))
        return self._gate(vertical), horizontal if self.first else left + horizontal

    def _gate(self, both: Tensor) -> Tensor:
        if both.dtype in WIDE:
            return gated(both * self.factors[:, None, None])
        a, b = both.chunk(2, 1)
        return torch.tanh(a) * torch.sigmoid(b)


class GatedPixelCNNStepper(PixelStepper):
    r"""Runs a :class:`GatedPixelCNNStack` number by number, each hidden unit once.

    The vertical stack is run once a row, for all its pixels; a step is left the horizontal one. Both halves of a gate
    take one ``tanh`` there, by 2 tanh(a) sigmoid(b) = tanh(a) + tanh(a) tanh(b / 2): the weights of b are halved, and
    those that meet the product.

    Args:
        stack: the network; its weights are read now.
        batch: B.
        context: (B, classes), or None.
    """

    def _prepare(self, stack: GatedPixelCNNStack, context: Tensor | None) -> RasterStep:
        colours, _, width = stack.event_shape
        batch, hidden = self.batch, stack.last.in_channels
        weight = stack.last.weight
        halves = torch.cat([weight.new_ones(hidden), weight.new_full((hidden,), 0.5)])
        labels = [[label(context) for label in layer.labels] or [None, None] for layer in stack.layers]
        self._horizontal = [
            RasterStep(layer.horizontal, batch, width, colours, label, halves)
            for layer, (_, label) in zip(stack.layers, labels, strict=True)
        ]
        self._out = [PointStep(layer.out, batch, colours, factor=2.0) for layer in stack.layers]
        self._vertical = [
            (
                RowConvolution(layer.vertical.weight.detach(), layer.vertical.margins[0], batch, width),
                (layer.vertical.bias.detach() + (0 if label is None else label)).expand(batch, -1)[:, None],
                (layer.to_horizontal.weight.detach()[:, :, 0, 0] * halves[:, None])[step.order].t(),
            )
            for layer, step, (label, _) in zip(stack.layers, self._horizontal, labels, strict=True)
        ]
        self._head = [PointStep(layer, batch, colours) for layer in (*stack.head, stack.last)]
        gates = weight.new_empty(batch, 2 * hidden)
        self._gates = [(gates[:, part], *gates[:, part].chunk(2, 1)) for part in self._horizontal[0].parts]
        return self._horizontal[0]

    def _start_row(self) -> None:
        row = self._image.finished_row
        for (convolve, bias, to_horizontal), horizontal in zip(self._vertical, self._horizontal, strict=True):
            vertical = convolve(row) + bias
            horizontal.start_row()
            horizontal.terms += vertical @ to_horizontal
            a, b = vertical.chunk(2, 2)
            row = torch.tanh(a) * torch.sigmoid(b)

    def _step(self, column: int, colour: int) -> Tensor:
        gates, a, b = self._gates[colour]
        for k, (horizontal, out) in enumerate(zip(self._horizontal, self._out, strict=True)):
            horizontal.step(column, colour, out=gates).tanh_()
            torch.addcmul(a, a, b, out=out.slots[colour])
            last = k + 1 == len(self._out)
            following = self._head[0].slots[colour] if last else self._horizontal[k + 1].slots[column][colour]
            if k == 0:
                out.step(colour, out=following)
            else:
                out.add(colour, horizontal.slots[column][colour], out=following)
        for layer, after in zip(self._head[:-1], self._head[1:], strict=True):
            layer.slots[colour].relu_()
            layer.step(colour, out=after.slots[colour])
        self._head[-1].slots[colour].relu_()
        return self._head[-1].step(colour)

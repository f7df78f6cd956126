"""PixelCNN: a stack of masked convolutions over an image, with the blind spot that such a stack has."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.networks.masked_conv import MaskedConv2d, colours_of, raster
from waveflow.networks.pixel_stack import PixelStack
from waveflow.networks.pixel_stepper import PixelStepper, PointStep, RasterStep


class PixelCNNStack(PixelStack):
    r"""The network of PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu, 2016; arXiv:1601.06759, figure 5, table 1).

    A masked convolution (mask A); residual blocks of ReLU, 1 x 1, ReLU, k x k, ReLU, 1 x 1; two more 1 x 1 after ReLUs
    and the output, which starts at zero; all masks but the first are B. Stacked masks of this kind never see a wedge to
    the upper right, however many they are (:class:`~waveflow.networks.GatedPixelCNNStack` does): see
    ``waveflow.networks.receptive_field``. A label adds a bias to every k x k convolution.

    Args:
        shape: (C, H, W) of the images.
        outputs: P, numbers for each number of the image.
        hidden: channels of the residual stream, the paper's 2h; blocks narrow it to half. Divided evenly among the
            colours.
        layers: number of residual blocks.
        kernel: k, odd.
        first_kernel: of the first convolution, odd.
        context: number of classes, given as one-hot (B, context); 0 for none.

    Shape:
        x (B, C, H, W), best within [-1, 1], and context (B, classes) to (B, P, C, H, W).

    Raises:
        ValueError: if a size is not positive, a kernel even or ``hidden`` below 2 C; (call) for images of another
            size, or a context that is missing, superfluous or of another size.

    Example:
        >>> stack = PixelCNNStack((3, 8, 8), outputs=2, hidden=12, layers=2)
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
        if layers < 0 or hidden < 2 * colours or min(kernel, first_kernel) < 1:
            raise ValueError(
                f"PixelCNNStack expects hidden of at least 2 x {colours} colours, layers from 0 and kernels from 1, "
                f"got hidden={hidden}, layers={layers}, kernel={kernel}, first_kernel={first_kernel}"
            )
        inputs, stream = torch.arange(colours), colours_of(hidden, colours)
        self.first = MaskedConv2d(inputs, stream, raster(first_kernel, first_kernel), strict=True)
        self.first_label = nn.Linear(context, hidden, bias=False) if context else None
        self.blocks = nn.ModuleList(_Block(stream, colours, kernel, context) for _ in range(layers))
        self.head = nn.ModuleList(MaskedConv2d(stream, stream, raster(1, 1)) for _ in range(2))
        self.last = MaskedConv2d(stream, inputs.repeat(outputs), raster(1, 1))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self._checked(x)
        self._check_context(context)
        stream = self.first(x)
        if context is not None:
            context = context.to(self.last.weight.dtype)
            stream = stream + self.first_label(context)[..., None, None]
        for block in self.blocks:
            stream = stream + block(stream, context)
        y = F.relu(stream)
        for layer in self.head:
            y = F.relu(layer(y))
        return self.last(y).unflatten(1, (self.outputs, self.event_shape[0]))

    def stepper(self, batch: int, context: Tensor | None = None) -> "PixelCNNStepper":
        """The same function number by number, without gradients; all steps together cost about one pass."""
        self._check_context(context)
        return PixelCNNStepper(self, batch, context)


class _Block(nn.Module):
    def __init__(self, stream: Tensor, colours: int, kernel: int, context: int):
        super().__init__()
        inner = colours_of(len(stream) // 2, colours)
        self.narrow = MaskedConv2d(stream, inner, raster(1, 1))
        self.conv = MaskedConv2d(inner, inner, raster(kernel, kernel))
        self.label = nn.Linear(context, len(inner), bias=False) if context else None
        self.widen = MaskedConv2d(inner, stream, raster(1, 1))

    def forward(self, stream: Tensor, context: Tensor | None) -> Tensor:
        y = self.conv(F.relu(self.narrow(F.relu(stream))))
        if context is not None:
            y = y + self.label(context)[..., None, None]
        return self.widen(F.relu(y))


class PixelCNNStepper(PixelStepper):
    """Runs a :class:`PixelCNNStack` number by number, each hidden unit once.

    Rows above are looked at once a row, for all its pixels; a step has left what lies to the left in its own row.

    Args:
        stack: the network; its weights are read now.
        batch: B.
        context: (B, classes), or None.
    """

    def _prepare(self, stack: PixelCNNStack, context: Tensor | None) -> RasterStep:
        batch, width, colours = self.batch, stack.event_shape[2], stack.event_shape[0]

        def masked(conv: MaskedConv2d, label: nn.Linear | None) -> RasterStep:
            return RasterStep(conv, batch, width, colours, label(context) if label else None)

        def point(conv: MaskedConv2d) -> PointStep:
            return PointStep(conv, batch, colours)

        self._first = masked(stack.first, stack.first_label)
        self._blocks = [(point(b.narrow), masked(b.conv, b.label), point(b.widen)) for b in stack.blocks]
        self._head = [point(layer) for layer in (*stack.head, stack.last)]
        stream = stack.last.weight.new_empty(batch, stack.first.out_channels)
        self._stream = [stream[:, part] for part in self._first.parts]
        return self._first

    def _start_row(self) -> None:
        self._first.start_row()
        for _, conv, _ in self._blocks:
            conv.start_row()

    def _step(self, column: int, colour: int) -> Tensor:
        stream = self._stream[colour]
        self._first.step(column, colour, out=stream)
        for narrow, conv, widen in self._blocks:
            torch.clamp_min(stream, 0, out=narrow.slots[colour])
            narrow.step(colour, out=conv.slots[column][colour]).relu_()
            conv.step(column, colour, out=widen.slots[colour]).relu_()
            widen.add(colour, stream)
        torch.clamp_min(stream, 0, out=self._head[0].slots[colour])
        for layer, following in zip(self._head[:-1], self._head[1:], strict=True):
            layer.step(colour, out=following.slots[colour]).relu_()
        return self._head[-1].step(colour)

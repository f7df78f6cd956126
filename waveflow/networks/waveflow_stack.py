"""WaveFlow's stack: a WaveNet over rows and columns, causal over rows, which are made one by one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from waveflow.context import Context, Ragged
from waveflow.networks.convolution import convolve
from waveflow.networks.gate import gate_factors, gated

_CYCLES = {16: 1, 32: 3, 64: 5, 128: 7}  # height: layers after which the dilation over rows begins again at 1


def height_dilations(height: int, layers: int) -> list[int]:
    """Dilations over rows such that 8 layers of 3 taps reach over all rows (WaveFlow, table 2).

    Raises:
        ValueError: for a height above 128.

    Example:
        >>> height_dilations(32, 8)
        [1, 2, 4, 1, 2, 4, 1, 2]
    """
    cycle = next((cycle for most, cycle in _CYCLES.items() if height <= most), None)
    if cycle is None:
        raise ValueError(f"height_dilations expects a height of at most 128, got {height}")
    return [2 ** (i % cycle) for i in range(layers)]


class WaveFlowStack(nn.Module):
    r"""A gated convolution stack over a waveform folded into rows (Ping et al., 2020; arXiv:1912.01219, section 3).

    .. math::
        h_0 = W x_{r-1}, \quad
        a_l = \tanh(W_l * h_l + V_l c) \odot \sigma(W'_l * h_l + V'_l c), \quad
        h_{l+1} = h_l + R_l a_l, \quad y = O \sum_l S_l a_l

    Row r of y depends on the rows of x before it, of all columns within reach, and on its own row of the context. The
    convolutions see the rows above (dilated as ``height_dilations`` says) and columns to both sides (dilation
    :math:`2^l`), beyond which there are zeros. y is zero in the first row and, since O starts at zero, everywhere.

    Rows may come in any order: it is that of the chain of permuted rows and contexts that a flow otherwise needs.

    Args:
        order: rows from first to last, a permutation of 0 ... h-1.
        outputs: P, numbers for each number of x.
        channels: width of h, of the gates and of the skip sum.
        layers: number of layers.
        kernel_size: taps over rows and over columns, odd.
        context_channels: channels of the context.

    Attributes:
        reach: columns to either side that an output depends on.

    Shape:
        x ``(B, h, W)``, context ``(B, context_channels, h, W)`` or, the same for all rows, ``(B, context_channels, 1,
        W)`` to ``(B, P, h, W)``. Under a ``Ragged`` context, its mask ``(B, 1, 1, W)``, the padding is held at zero in
        every layer.

    Raises:
        ValueError: for an order that is no permutation of at least 2 rows, for an even kernel; if x or the context is
            of another shape.
    """

    def __init__(
        self,
        order: Sequence[int],
        outputs: int,
        channels: int,
        layers: int,
        kernel_size: int,
        context_channels: int,
    ):
        super().__init__()
        height = len(order)
        if sorted(order) != list(range(height)) or height < 2:
            raise ValueError(f"WaveFlowStack expects an order of at least 2 rows, got {list(order)}")
        if kernel_size % 2 == 0:
            raise ValueError(f"WaveFlowStack expects an odd kernel_size, got {kernel_size}")
        self.event_shape = (height, None)
        self.outputs, self.context = outputs, context_channels
        self.order = tuple(order)
        self.register_buffer("rows", torch.tensor(order), persistent=False)
        self.input = weight_norm(nn.Linear(1, channels))
        self.layers = nn.ModuleList(
            GatedRowLayer(channels, kernel_size, (down, 2**i), context_channels, last=i == layers - 1)
            for i, down in enumerate(height_dilations(height, layers))
        )
        self.output = nn.Conv2d(channels, outputs, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @property
    def reach(self) -> int:
        """Columns to either side that an output depends on."""
        return sum(layer.reach for layer in self.layers)

    def positions(self, event: tuple[int, ...]) -> Tensor:
        """Flat positions of an event (h, W) from first to last, a row a step: (h, W)."""
        width = event[1]
        return self.rows[:, None] * width + torch.arange(width, device=self.rows.device)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        context, mask = rows_of_context(self, x.shape, context)
        x = x.index_select(1, self.rows[:-1])
        h = masked(self.input(x.unsqueeze(-1)).movedim(-1, 1), mask)
        skips = 0
        for layer in self.layers:
            residual, skip = layer(h, context)
            skips = skips + skip
            if residual is not None:
                h = masked(h + residual, mask)
        y = convolve(skips, self.output.weight, self.output.bias)
        # The first row is copied: its parameters are zero.
        return F.pad(y, (0, 0, 1, 0)).index_select(2, self.rows.argsort())

    def stepper(self, batch: int, context: Context) -> "RowStepper":
        """The same function row by row, see :class:`~waveflow.bijectors.Autoregressive`."""
        return self.folded(self.output.weight.dtype).stepper(batch, context)

    def folded(self, dtype: torch.dtype = torch.float32) -> "FoldedWaveFlowStack":
        """A frozen equal of this stack for inference, computing in ``dtype``."""
        with torch.autocast(self.rows.device.type, enabled=False):
            return FoldedWaveFlowStack(self, dtype)


class GatedRowLayer(nn.Module):
    """One layer of :class:`WaveFlowStack`: h and context to (residual, skip), the residual None in the last layer."""

    def __init__(self, channels: int, kernel_size: int, dilation: tuple[int, int], context_channels: int, last: bool):
        super().__init__()
        self.channels, self.kernel_size, self.dilation = channels, kernel_size, dilation
        self.reach = dilation[1] * (kernel_size - 1) // 2
        self.gates = weight_norm(nn.Conv2d(channels, 2 * channels, kernel_size, dilation=dilation))
        self.condition = weight_norm(nn.Conv2d(context_channels, 2 * channels, 1))
        self.mix = weight_norm(nn.Conv2d(channels, channels if last else 2 * channels, 1))
        self.register_buffer("factors", gate_factors(channels), persistent=False)

    def forward(self, h: Tensor, context: Tensor) -> tuple[Tensor | None, Tensor]:
        gates = convolve_rows(h, *self.factored(self.gates), self.dilation)
        gates = gates + convolve(context, *self.factored(self.condition))
        mixed = convolve(gated(gates), self.mix.weight, self.mix.bias)
        return mixed.chunk(2, 1) if mixed.shape[1] > self.channels else (None, mixed)

    def factored(self, convolution: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """Weight and bias such that the outputs are what :func:`gated` takes."""
        return convolution.weight * self.factors[:, None, None, None], convolution.bias * self.factors


class FoldedWaveFlowStack(nn.Module):
    """What a :class:`WaveFlowStack` computes, with everything that is constant multiplied out beforehand.

    Weight norm is applied; the skip sum and the output layer, linear both, become one small product for each layer;
    the factors of the gate go into the weights. In a dtype lower than float32 the sum of the outputs is still
    float32. Frozen; same call, stepper and result as the stack, to rounding.
    """

    def __init__(self, stack: WaveFlowStack, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.event_shape, self.order = stack.event_shape, stack.order
        self.outputs, self.context, self.reach = stack.outputs, stack.context, stack.reach
        self.dilations = [layer.dilation for layer in stack.layers]
        self.register_buffer("rows", stack.rows, persistent=False)
        self._store("input", stack.input.weight[:, 0], stack.input.bias)
        out = stack.output.weight[:, :, 0, 0].double()
        output_bias = stack.output.bias.double()
        for i, layer in enumerate(stack.layers):
            c = layer.channels
            gates, gates_bias = layer.factored(layer.gates)
            condition, condition_bias = layer.factored(layer.condition)
            self._store(f"gates{i}", gates, None)
            self._store(f"condition{i}", condition, gates_bias + condition_bias)
            mix, mix_bias = layer.mix.weight[:, :, 0, 0].double(), layer.mix.bias.double()
            output_bias = output_bias + out @ mix_bias[-c:]
            residual_bias = torch.cat([mix_bias[:-c], torch.zeros_like(output_bias)])
            weight = torch.cat([mix[:-c], out @ mix[-c:]])
            self._store(f"mix{i}", weight[:, :, None, None], residual_bias)
        wide = torch.promote_types(dtype, torch.float32)
        self.register_buffer("output_bias", output_bias.detach().to(wide)[:, None, None])
        self.finish = finish_layer

    positions = WaveFlowStack.positions

    def _store(self, name: str, weight: Tensor, bias: Tensor | None) -> None:
        weight = weight.detach().to(self.dtype)
        if weight.ndim == 4:
            weight = weight.contiguous(memory_format=torch.channels_last)
        self.register_buffer(f"{name}_weight", weight)
        self.register_buffer(f"{name}_bias", None if bias is None else bias.detach().to(self.dtype))

    def compile_steps(self) -> None:
        """Compile what a layer does behind its dilated convolution by ``torch.compile``."""
        self.finish = torch.compile(finish_layer)

    def stored(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of that name."""
        return getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        context, mask = rows_of_context(self, x.shape, context)
        context, mask = context.to(self.dtype), None if mask is None else mask.to(self.dtype)
        weight, bias = self.stored("input")
        h = x.index_select(1, self.rows[:-1]).to(self.dtype).unsqueeze(-1)
        h = masked((h * weight + bias).movedim(-1, 1), mask)
        y = self.output_bias
        for i, dilation in enumerate(self.dilations):
            gates = convolve_rows(h, *self.stored(f"gates{i}"), dilation)
            conditions = convolve(context, *self.stored(f"condition{i}"))
            mixed = self.finish(gates, conditions, *self.stored(f"mix{i}"))
            y = y + mixed[:, -self.outputs :]
            if i < len(self.dilations) - 1:
                h = masked(h + mixed[:, : -self.outputs], mask)
        return F.pad(y, (0, 0, 1, 0)).index_select(2, self.rows.argsort())

    def stepper(self, batch: int, context: Context) -> "RowStepper":
        """The same function row by row, see :class:`~waveflow.bijectors.Autoregressive`."""
        return RowStepper(self, batch, context)


class RowStepper:
    """A folded stack run row by row, without gradients: each layer keeps the rows that its kernel still spans.

    The rows of a layer with dilation D over rows are D interleaved sequences, each with a ring of as many rows as the
    kernel has. Rings are never shifted: it is the kernel, of which there is a copy for every state of the ring, that
    is. Rows before the first one are left out, not multiplied by zeros.

    Args:
        stack: the network.
        batch: B.
        context: (B, C, h or 1, W), or ``Ragged`` with a mask (B, 1, 1, W).
    """

    def __init__(self, stack: FoldedWaveFlowStack, batch: int, context: Context):
        width = (context.values if isinstance(context, Ragged) else context).shape[-1]
        self._stack, self._row = stack, 0
        self._device = stack.rows.device.type
        with torch.no_grad(), torch.autocast(self._device, enabled=False):
            values, mask = rows_of_context(stack, (batch, len(stack.order), width), context)
            self._context = values.to(stack.dtype)
            self._mask = None if mask is None else mask.to(stack.dtype)
            # What each row has for its own is conditioned upon when its turn comes: there is nothing to gain before.
            self._shared = (
                [self._condition(i, 0) for i in range(len(stack.dilations))] if values.shape[2] == 1 else None
            )
            self._rings = [Ring(stack.stored(f"gates{i}")[0], d, batch, width) for i, d in enumerate(stack.dilations)]
        self._params = stack.output_bias.new_zeros(batch, stack.outputs, width)

    def params(self) -> Tensor:
        """Parameters of the next row in order, (B, P, W)."""
        return self._params

    def push(self, x: Tensor) -> None:
        """Tell the next row in order, (B, W)."""
        if self._row < len(self._stack.order) - 1:
            with torch.no_grad(), torch.autocast(self._device, enabled=False):
                self._params = self._step(x)
        self._row += 1

    def _step(self, x: Tensor) -> Tensor:
        stack = self._stack
        weight, bias = stack.stored("input")
        h = torch.addcmul(bias, x.to(stack.dtype)[:, None, :, None], weight).movedim(-1, 1)
        y = stack.output_bias
        for i, ring in enumerate(self._rings):
            gates = ring(self._row, masked(h, self._mask))
            conditions = self._condition(i, self._row) if self._shared is None else self._shared[i]
            mixed = stack.finish(gates, conditions, *stack.stored(f"mix{i}"))
            y = y + mixed[:, -stack.outputs :]
            if i < len(self._rings) - 1:
                h = h + mixed[:, : -stack.outputs]
        return y.squeeze(2)

    def _condition(self, layer: int, row: int) -> Tensor:
        return convolve(self._context[:, :, row : row + 1], *self._stack.stored(f"condition{layer}"))


class Ring:
    """A convolution that is given rows one by one.

    Args:
        weight: (out, in, rows, columns).
        dilation: of rows and of columns.
        batch: B.
        width: W.
    """

    def __init__(self, weight: Tensor, dilation: tuple[int, int], batch: int, width: int):
        _, inputs, self._height, columns = weight.shape
        self._down, self._across = dilation
        self._padding = self._across * (columns - 1) // 2
        self._rows = weight.new_zeros(batch, self._down, self._height, width, inputs)
        last = self._height - 1
        self._first = [weight[:, :, last - count :] for count in range(last)]
        turned = [weight.roll(count + 1, 2) for count in range(self._height)]
        self._turned = [w.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) for w in turned]

    def __call__(self, row: int, h: Tensor) -> Tensor:
        """Row number ``row``, (B, in, 1, W), to the output there, (B, out, 1, W)."""
        rows, count = self._rows[:, row % self._down], row // self._down
        rows[:, count % self._height] = h[:, :, 0].transpose(1, 2)
        if count < len(self._first):
            rows, weight = rows[:, : count + 1], self._first[count]
        else:
            weight = self._turned[count % self._height]
        return F.conv2d(rows.permute(0, 3, 1, 2), weight, padding=(0, self._padding), dilation=(1, self._across))


def finish_layer(gates: Tensor, conditions: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What follows the dilated convolution in a folded layer; ``gates`` is overwritten."""
    return convolve(gated(gates.add_(conditions)), weight, bias)


def convolve_rows(h: Tensor, weight: Tensor, bias: Tensor | None, dilation: tuple[int, int]) -> Tensor:
    """Convolve h (B, C, rows, W) with weight (out, in, k, k): rows above and columns to both sides, zeros beyond."""
    down, across = (d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True))
    weight = weight.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return F.conv2d(F.pad(h, (0, 0, down, 0)), weight, bias, padding=(0, across // 2), dilation=dilation)


def rows_of_context(
    stack: WaveFlowStack | FoldedWaveFlowStack, shape: Sequence[int], context: Context
) -> tuple[Tensor, Tensor | None]:
    """Rows of the context that the outputs behind the first row are conditioned on, in order, channels last; the mask.

    Raises:
        ValueError: if x, of that shape, or the context does not fit.
    """
    height, width = len(stack.order), shape[-1]
    if len(shape) != 3 or shape[1] != height:
        raise ValueError(f"WaveFlowStack expects (B, {height}, W), got {tuple(shape)}")
    values, mask = context if isinstance(context, Ragged) else (context, None)
    expected = [(shape[0], stack.context, rows, width) for rows in (height, 1)]
    if values is None or tuple(values.shape) not in expected:
        got = None if values is None else tuple(values.shape)
        raise ValueError(f"WaveFlowStack expects a context {expected[0]} or {expected[1]}, got {got}")
    if values.shape[2] > 1:
        values = values.index_select(2, stack.rows[1:])
    return values.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), mask


def masked(h: Tensor, mask: Tensor | None) -> Tensor:
    """h, zero where the mask is, if there is one."""
    return h if mask is None else h * mask

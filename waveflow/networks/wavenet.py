"""The dilated, gated convolution stack of WaveNet: causal, as it was published, or as a condition of couplings."""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from waveflow.context import Context, Ragged
from waveflow.networks.causal_convolution import CausalConv1d
from waveflow.networks.compile_choice import Kept, has_wide_vectors, is_plain
from waveflow.networks.convolution import ChannelsLastConv1d, convolve, to_channels_last
from waveflow.networks.gate import WIDE, gate_factors, gated
from waveflow.networks.wavenet_causal import FoldedCausalStack
from waveflow.networks.wavenet_stepper import WaveNetStepper
from waveflow.networks.wavenet_stream import WaveNetStream, begin_stream
from waveflow.networks.wavenet_weights import CausalWeights, pack

if TYPE_CHECKING:
    from waveflow.networks.compiled_stream import CompiledStream


class WaveNetStack(nn.Module):
    r"""Residual layers of dilated convolutions with a gated activation and skip connections.

    .. math::
        a_l = \tanh(W_l * h_l + V_l c) \odot \sigma(W'_l * h_l + V'_l c), \quad
        h_{l+1} = r\,(h_l + R_l a_l), \quad s = q \sum_l S_l a_l, \quad y = O s

    Layer l has dilation :math:`2^{l \bmod \text{cycle}}`; r = q = 1 unless ``scaled``; O starts at zero
    (WaveNet: arXiv:1609.03499). In two forms:

    - Non-causal, zero-padded to the same length, which conditions WaveGlow's couplings (arXiv:1811.00002, section 2.1).
    - ``causal``: y at time t follows from x before t and from the context up to and including t, so the stack is a
      conditioner of :class:`~waveflow.bijectors.Autoregressive` and of
      :class:`~waveflow.distributions.AutoregressiveDistribution` over events (1, T). The first layer is a convolution
      over the ``first_kernel`` numbers before t; :meth:`stepper` runs the stack sample by sample.

    Args:
        in_channels: channels of x; 1 if causal.
        out_channels: channels of y.
        channels: width of h, of the gates and of the skip sum.
        layers: number of layers.
        kernel_size: taps of the dilated convolutions, odd unless causal.
        context_channels: channels of the context, 0 for none.
        cycle: layers after which the dilation begins again at 1; 0 for never.
        separable: replace each dilated convolution by a depthwise one followed by a product over
            channels (SqueezeWave: arXiv:2001.05685).
        causal: see above.
        first_kernel: taps of the first convolution (ClariNet has 32: arXiv:1807.07281); 1 unless causal.
        post: y = O relu(O' relu(s)) instead, WaveNet's own end; only if causal.
        scaled: r = sqrt(1 / 2) and q = sqrt(1 / layers), so that sums keep their variance; only if causal.

    Shape:
        x ``(B, in_channels, T)``, context ``(B, context_channels, >= T)`` (a surplus is ignored) to ``(B,
        out_channels, T)``, or if causal to ``(B, out_channels, 1, T)``, the parameters of events (1, T). Under a
        ``Ragged`` context the padding is held at zero in every layer; a causal stack sees none anyway.

    Raises:
        ValueError: for sizes that do not fit; (on call) if the context is missing, has other channels or is shorter
            than x.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: int,
        layers: int,
        kernel_size: int = 3,
        context_channels: int = 0,
        cycle: int = 0,
        separable: bool = False,
        causal: bool = False,
        first_kernel: int = 1,
        post: bool = False,
        scaled: bool = False,
    ):
        super().__init__()
        if causal and in_channels != 1:
            raise ValueError(f"a causal WaveNetStack expects in_channels=1, got {in_channels}")
        if not causal and (first_kernel != 1 or post or scaled):
            raise ValueError("WaveNetStack expects first_kernel, post and scaled only if causal")
        self.channels, self.out_channels = channels, out_channels
        self.context_channels = self.context = context_channels
        self.causal = causal
        self.residual_scale = math.sqrt(1 / 2) if scaled else 1.0
        self.skip_scale = math.sqrt(1 / layers) if scaled else 1.0
        first = CausalConv1d(1, channels, first_kernel, strict=True) if causal else None
        self.input = weight_norm(first or ChannelsLastConv1d(in_channels, channels))
        dilations = [2 ** (i % cycle if cycle else i) for i in range(layers)]
        self.layers = nn.ModuleList(
            GatedLayer(channels, kernel_size, d, context_channels, separable, last=i == layers - 1, causal=causal)
            for i, d in enumerate(dilations)
        )
        self.post = weight_norm(ChannelsLastConv1d(channels, channels)) if post else None
        self.output = ChannelsLastConv1d(channels, out_channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @property
    def event_shape(self) -> tuple[int, None] | None:
        """What a causal stack is over, (1, any length); None for the other."""
        return (1, None) if self.causal else None

    @property
    def reach(self) -> int:
        """Number of positions, to either side or if causal before it, that an output depends on."""
        return sum(layer.reach for layer in self.layers) + (self.input.kernel_size[0] if self.causal else 0)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        context, mask = _fit(x, context, self.context_channels)
        if self.causal:
            mask = None
        h = _masked(self.input(to_channels_last(x)), mask)
        skips = 0
        for layer in self.layers:
            residual, skip = layer(h, context)
            skips = skips + skip
            if residual is not None:
                h = _masked(h + residual, mask)
                h = h if self.residual_scale == 1 else h * self.residual_scale
        skips = skips if self.skip_scale == 1 else skips * self.skip_scale
        if self.post is not None:
            skips = F.relu(self.post(F.relu(skips)))
        y = self.output(skips)
        return y if self.causal else y.squeeze(2)

    def folded(self, dtype: torch.dtype = torch.float32) -> "FoldedWaveNetStack | FoldedCausalStack":
        """A frozen equal of this stack for inference, computing in ``dtype``."""
        return FoldedCausalStack(self, dtype) if self.causal else FoldedWaveNetStack(self, dtype)

    def packed(self, dtype: torch.dtype | None = None) -> CausalWeights:
        """The weights of a causal stack, constants multiplied out, as loops over samples want them.

        Args:
            dtype: of the result; None for that of the stack.

        Raises:
            ValueError: for a stack that is not causal.
        """
        if not self.causal:
            raise ValueError("only a causal WaveNetStack has packed weights")
        return pack(self, dtype or self.output.weight.dtype)

    def stepper(self, batch: int, context: Context = None) -> WaveNetStepper:
        """A causal stack run sample by sample, without gradients.

        Args:
            batch: B.
            context: (B, context_channels, T) of all samples to come, or None.

        Returns:
            the stepper: ``params()`` are (B, out_channels) of the next sample, ``push(x)`` tells it, (B,).

        Raises:
            ValueError: for a stack that is not causal, or a context that is missing or does not fit.
        """
        return WaveNetStepper(self.packed(), batch, context)

    def stream(self, batch: int) -> "WaveNetStream | CompiledStream":
        """A causal stack run block by block, without gradients.

        Args:
            batch: B.

        Raises:
            ValueError: for a stack that is not causal.
        """
        return begin_stream(self.packed(), batch)


class GatedLayer(nn.Module):
    """One layer of :class:`WaveNetStack`: h and context to (residual, skip), the residual None in the last layer."""

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        dilation: int,
        context_channels: int,
        separable: bool,
        last: bool,
        causal: bool = False,
    ):
        super().__init__()
        self.channels = channels
        self.reach = dilation * (kernel_size - 1) // (1 if causal else 2)
        convolution = CausalConv1d if causal else ChannelsLastConv1d
        if separable:
            self.depthwise = weight_norm(convolution(channels, channels, kernel_size, dilation, groups=channels))
            self.gates = weight_norm(ChannelsLastConv1d(channels, 2 * channels))
        else:
            self.depthwise = None
            self.gates = weight_norm(convolution(channels, 2 * channels, kernel_size, dilation))
        self.condition = weight_norm(ChannelsLastConv1d(context_channels, 2 * channels)) if context_channels else None
        self.mix = weight_norm(ChannelsLastConv1d(channels, channels if last else 2 * channels))
        self.register_buffer("factors", gate_factors(channels), persistent=False)

    def forward(self, h: Tensor, context: Tensor | None) -> tuple[Tensor | None, Tensor]:
        gates = self.gates(h if self.depthwise is None else self.depthwise(h))
        if self.condition is not None:
            gates = gates + self.condition(context)
        if gates.dtype in WIDE:
            mixed = self.mix(gated(gates * self.factors[:, None, None]))
        else:
            a, b = gates.chunk(2, 1)
            mixed = self.mix(torch.tanh(a) * torch.sigmoid(b))
        return mixed.chunk(2, 1) if mixed.shape[1] > self.channels else (None, mixed)


class FoldedWaveNetStack(nn.Module):
    """What a :class:`WaveNetStack` computes, with everything that is constant multiplied out beforehand.

    Weight norm is applied; the skip sum and the output layer, linear both, become one small product for each layer;
    the factors of the gate go into the weights. In a dtype lower than float32 the sum of the outputs is still
    float32. Frozen; same call and result as the stack, to rounding.

    In float32 on a CPU with AVX-512, and where no gradients are asked for, compiled code computes it.
    """

    def __init__(self, stack: WaveNetStack, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.context_channels = stack.context_channels
        self.reach = stack.reach
        self._kept = Kept()
        self.dilations = [
            (layer.gates if layer.depthwise is None else layer.depthwise).dilation[0] for layer in stack.layers
        ]
        self.groups = stack.input.out_channels
        self._store("input", stack.input.weight, stack.input.bias)
        out = stack.output.weight[:, :, 0].double()
        output_bias = stack.output.bias.double()
        # In lower precision tanh(a) sigmoid(b) = (tanh(a) + tanh(a) tanh(b / 2)) / 2.
        for i, layer in enumerate(stack.layers):
            c = layer.channels
            factors = layer.factors.double()[:, None, None]
            if dtype not in WIDE:
                factors = torch.where(factors < 0, 1.0, 0.5)
            if layer.depthwise is not None:
                self._store(f"depthwise{i}", layer.depthwise.weight, layer.depthwise.bias)
            bias = layer.gates.bias.double()
            if layer.condition is not None:
                bias = bias + layer.condition.bias.double()
                self._store(f"condition{i}", layer.condition.weight.double() * factors, None)
            self._store(f"gates{i}", layer.gates.weight.double() * factors, bias * factors[:, 0, 0])
            mix, mix_bias = layer.mix.weight[:, :, 0].double(), layer.mix.bias.double()
            residual, skip = mix[:-c], mix[-c:]
            output_bias = output_bias + out @ mix_bias[-c:]
            residual_bias = torch.cat([mix_bias[:-c], torch.zeros_like(output_bias)])
            mix = torch.cat([residual, out @ skip])[:, :, None]
            self._store(f"mix{i}", mix if dtype in WIDE else 0.5 * mix, residual_bias)
        self.register_buffer("output_bias", output_bias.float()[:, None, None])

    def runs_compiled(self, x: Tensor) -> bool:
        """Whether compiled code of our own computes what this stack makes of x, here and now."""
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or not is_plain(x):
            return False
        if self._compiled_call_impl is not None:
            return False  # PyTorch's own compiler does
        # A product for each tap costs more than the depthwise ones of separable layers.
        dense = self.dtype == torch.float32 and not hasattr(self, "depthwise0_weight")
        return dense and has_wide_vectors(x)

    def _store(self, name: str, weight: Tensor, bias: Tensor | None) -> None:
        weight = weight.detach().to(self.dtype).unsqueeze(2).contiguous(memory_format=torch.channels_last)
        self.register_buffer(f"{name}_weight", weight)
        self.register_buffer(f"{name}_bias", None if bias is None else bias.detach().to(self.dtype))

    def _apply_stored(self, name: str, x: Tensor, dilation: int = 1, groups: int = 1) -> Tensor:
        return convolve(x, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"), dilation, groups)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        context, mask = _fit(x, context, self.context_channels)
        alike = all(is_plain(part) and (part is None or len(part) == len(x)) for part in (x, context, mask))
        if alike and self.runs_compiled(x):
            from waveflow.networks.compiled_stack import pack_stack, run_stack  # numba takes half a second to import

            layers = self._kept(self.buffers(), lambda: pack_stack(self))
            both = (None if part is None else part.squeeze(2) for part in (context, mask))
            return run_stack(self, layers, x.float(), *both)
        context = None if context is None else context.to(self.dtype)
        mask = None if mask is None else mask.to(self.dtype)
        h = _masked(self._apply_stored("input", to_channels_last(x.to(self.dtype))), mask)
        y = self.output_bias
        for i, dilation in enumerate(self.dilations):
            if hasattr(self, f"depthwise{i}_weight"):
                gates = self._apply_stored(f"gates{i}", self._apply_stored(f"depthwise{i}", h, dilation, self.groups))
            else:
                gates = self._apply_stored(f"gates{i}", h, dilation)
            if context is not None:
                gates = gates + self._apply_stored(f"condition{i}", context)
            if self.dtype in WIDE:
                activation = gated(gates)
            else:
                a, b = torch.tanh(gates).chunk(2, 1)
                activation = torch.addcmul(a, a, b)
            mixed = self._apply_stored(f"mix{i}", activation)
            y = y + mixed[:, -len(self.output_bias) :]
            if i < len(self.dilations) - 1:
                h = _masked(h + mixed[:, : -len(self.output_bias)], mask)
        return y.squeeze(2)


def _fit(x: Tensor, context: Context, channels: int) -> tuple[Tensor | None, Tensor | None]:
    """Context and mask in channels-last memory, cut to the length of x."""
    values, mask = context if isinstance(context, Ragged) else (context, None)
    length = x.shape[-1]
    mask = None if mask is None else mask[..., :length].unsqueeze(2)
    if not channels:
        return None, mask
    if values is None or values.shape[1] != channels or values.shape[-1] < length:
        got = None if values is None else tuple(values.shape)
        raise ValueError(f"WaveNetStack expects a context (B, {channels}, {length} or more), got {got}")
    return to_channels_last(values[..., :length]), mask


def _masked(h: Tensor, mask: Tensor | None) -> Tensor:
    return h if mask is None else h * mask

"""WaveFlow: a flow vocoder between WaveNet and WaveGlow (Ping, Peng, Zhao & Song, 2020; arXiv:1912.01219)."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from waveflow.bijectors import LOG_SCALES, Affine, Autoregressive, Bijector, Chain, Conditioned, Squeeze
from waveflow.context import Context, Ragged
from waveflow.errors import InputError
from waveflow.models.vocoder_model import WHITENED, VocoderConfig, VocoderModel
from waveflow.networks import LinearUpsampler, SpectrogramUpsampler, WaveFlowStack

_CHOICES = {
    "permutation": ("a", "b"),
    "upsampler": ("transposed", "linear"),
    "memory": ("store", "invert"),
    "scale": tuple(LOG_SCALES),
}


@dataclass(frozen=True, kw_only=True)
class WaveFlowConfig(VocoderConfig):
    """What a WaveFlow is made of, besides what every vocoder has; the defaults are the paper's smallest.

    Args:
        height: rows into which the waveform is folded, 2 to 128; divides the hop length.
        flows: autoregressive maps over rows.
        layers: layers of the network of each.
        channels: width of these layers.
        kernel_size: taps of their convolutions, over rows and over columns, odd.
        permutation: order of the rows between flows, see :func:`row_orders`.
        upsampler: ``"transposed"``: two transposed convolutions to the sample rate, folded as the waveform is (the
            paper). ``"linear"``: a convolution over frames, interpolated to columns; all rows of one are given the
            same.
        context_channels: channels of the linear upsampler.
        scale: scale map of the flows.
        memory: ``"store"`` or ``"invert"``, see ``Chain``.
    """

    height: int = 16
    flows: int = 8
    layers: int = 8
    channels: int = 64
    kernel_size: int = 3
    permutation: Literal["a", "b"] = "b"
    upsampler: Literal["transposed", "linear"] = "transposed"
    context_channels: int = 80
    scale: str = "exp"
    memory: Literal["store", "invert"] = "store"

    def __post_init__(self):
        super().__post_init__()
        self._require_positive("flows", "layers", "channels", "context_channels")
        if not 2 <= self.height <= 128 or self.mel.hop_length % self.height:
            raise InputError(
                f"WaveFlow expects a height of 2 to 128 that divides the hop of {self.mel.hop_length}, "
                f"got {self.height}"
            )
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise InputError(f"WaveFlow expects an odd kernel_size, got {self.kernel_size}")
        for name, choices in _CHOICES.items():
            self._require_choice(name, choices)


def row_orders(height: int, flows: int, permutation: str) -> list[list[int]]:
    """For each flow, the rows of the waveform from first to last.

    Args:
        height: number of rows.
        flows: number of flows.
        permutation: ``"a"``: rows are reversed after every flow. ``"b"``: so they are after each of the first half of
            the flows; after the others, each half of the rows is reversed by itself.

    Example:
        >>> row_orders(4, 4, "a")
        [[0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3], [3, 2, 1, 0]]
        >>> row_orders(4, 4, "b")
        [[0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3], [1, 0, 3, 2]]
    """
    order = list(range(height))
    orders = []
    for flow in range(flows):
        orders.append(order)
        middle = height // 2 if permutation == "b" and flow >= flows // 2 else 0
        order = order[:middle][::-1] + order[middle:][::-1]
    return orders


class WaveFlow(VocoderModel):
    """Waveform = inverse of autoregressive maps over its rows, each conditioned on its mel.

    The waveform is folded into ``height`` rows, column by column. Each flow transforms a row given those before it:
    densities take one pass of every flow, synthesis ``height - 1`` steps of every flow, each for all columns at once.

    Constructed with the fields of :class:`WaveFlowConfig` as keywords, or by ``from_preset(name)``:

    - ``ljspeech-64``: the paper's, 5.91 M parameters with weight norm; ``ljspeech-96`` (12.8 M), ``ljspeech-128`` (22.3
      M) and ``ljspeech-256`` (86.2 M) differ in width.
    - ``small``: 1.1 M.
    - ``tiny``: 0.2 M, trains on a CPU in minutes.

    Example:
        >>> model = WaveFlow.from_preset("tiny")
        >>> mel = torch.full((1, 80, 4), -4.5)
        >>> model.vocode(mel).shape, model.log_prob(torch.zeros(1, 1024), mel).shape
        (torch.Size([1, 1024]), torch.Size([1]))
    """

    Config = WaveFlowConfig
    PRESETS: ClassVar = {
        "ljspeech-64": {},
        "ljspeech-96": {"channels": 96},
        "ljspeech-128": {"channels": 128},
        "ljspeech-256": {"channels": 256},
        "small": {
            "flows": 6,
            "layers": 7,
            "channels": 32,
            "upsampler": "linear",
            "scale": "tanh_exp",
            **WHITENED,
        },
        "tiny": {
            "flows": 4,
            "layers": 4,
            "channels": 16,
            "upsampler": "linear",
            "scale": "tanh_exp",
            **WHITENED,
        },
    }
    config: WaveFlowConfig

    def build(self) -> None:
        c = self.config
        if c.upsampler == "transposed":
            encoder = SpectrogramUpsampler(c.mel.n_mels, c.mel.hop_length)
        else:
            centered = c.mel.padding == "center"
            encoder = LinearUpsampler(c.mel.n_mels, c.context_channels, c.mel.hop_length, c.height, centered)
        flows = []
        for order in row_orders(c.height, c.flows, c.permutation):
            univariate = Affine(c.scale)
            network = WaveFlowStack(order, univariate.params, c.channels, c.layers, c.kernel_size, encoder.out_channels)
            flows.append(Autoregressive(network, univariate, "sequential"))
        rows = ConditionedRows(encoder, Chain(flows, c.memory), c.height if c.upsampler == "transposed" else 1)
        self.flow = self.make_flow(Chain([Squeeze(c.height, dims=1), rows]))

    @property
    def group(self) -> int:
        """Samples that are folded into a column."""
        return self.config.height

    @property
    def reach(self) -> tuple[int, int]:
        """Frames before and after a hop on which its samples (its residual, if whitened) depend, from the layers.

        Far more than a density's: each row is made from the rows before it, and these from what they see in turn.
        """
        columns = sum((self.group - 1) * flow.conditioner.reach for flow in self.flows())
        frames = -(-columns * self.config.height // self.config.mel.hop_length)
        before, after = self.encoder.reach
        return frames + before, frames + after

    @property
    def encoder(self) -> SpectrogramUpsampler | LinearUpsampler:
        """The upsampler of mels."""
        return self.layers[1].encoder

    def flows(self) -> Iterator[Autoregressive]:
        """The autoregressive maps, in the order from data to latent."""
        return (part for part in self.flow.bijector.modules() if isinstance(part, Autoregressive))

    def _synthesise_chunks(self, z: Tensor, context: Context, chunk: int) -> Tensor:
        # Flow by flow over the whole length, so that a chunk needs what one flow reaches over, not what all do.
        hop, rate, (before, after) = (
            self.config.mel.hop_length,
            self.config.mel.hop_length // self.group,
            self.encoder.reach,
        )
        values, mask = context if isinstance(context, Ragged) else (context, None)
        squeeze, conditioned = self.layers
        frames = values.shape[-1]
        if chunk >= frames:
            return super()._synthesise_chunks(z, context, chunk)
        for flow in reversed(list(self.flows())):
            one = ConditionedRows(self.encoder, flow, conditioned.rows)
            margin = -(-(self.group - 1) * flow.conditioner.reach // rate)
            pieces = []
            for start in range(0, frames, chunk):
                stop = min(start + chunk, frames)
                low, high = max(0, start - margin - before), min(frames, stop + margin + after)
                part = values[..., low:high]
                part = part if mask is None else Ragged(part, mask[..., low:high])
                piece, _ = one.inverse(z[..., low * rate : high * rate], part)
                pieces.append(piece[..., (start - low) * rate : (stop - low) * rate])
            z = torch.cat(pieces, 2)
        residual, _ = squeeze.inverse(z)
        if self.whitening is None:
            return residual[:, 0]
        pieces, state = [], None
        for start in range(0, frames, chunk):
            piece = residual[..., start * hop : (start + chunk) * hop]
            piece, state = self.whitening.inverse_part(piece, context, start, state)
            pieces.append(piece[:, 0])
        return torch.cat(pieces, 1)

    def for_inference(self, dtype: torch.dtype = torch.float32, compile: bool = False) -> Self:
        """A frozen copy that vocodes faster: weight norm folded, linear layers merged.

        Args:
            dtype: of the networks. Everything else stays in float32: affine maps and log-dets.
            compile: also compile parts of the networks by ``torch.compile``; the first call of each length is slow.

        Raises:
            InputError: for a dtype other than float32, bfloat16, float16 (for GPUs) and float64; for a copy that was
                made for inference already.
        """
        if dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            raise InputError(f"for_inference expects torch.float32 or torch.bfloat16, got {dtype}")
        if self.made_for_inference:
            raise InputError("for_inference expects a model as it is trained or loaded, got a copy made for inference")
        twin = copy.deepcopy(self)
        twin.made_for_inference = True
        for flow in twin.flows():
            flow.conditioner = flow.conditioner.folded(dtype)
            if compile:
                flow.conditioner.compile_steps()
        return twin.requires_grad_(False).eval()


class ConditionedRows(Conditioned):
    """A bijector of rows (B, h, W) that is given an encoding of the context folded into rows, cut to W columns.

    Args:
        encoder: maps the raw context to (B, C, L).
        bijector: the map that is conditioned.
        rows: into which the encoding is folded, to (B, C, rows, L / rows): h, or 1 where L counts columns.
    """

    def __init__(self, encoder: nn.Module, bijector: Bijector, rows: int):
        super().__init__(encoder, bijector)
        self.rows = rows

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self.bijector(x, self._encode(context, x.shape[-1]))

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self.bijector.inverse(z, self._encode(context, z.shape[-1]))

    def _encode(self, context: Context, columns: int) -> Context:
        encoding = self.encoder(context)
        if isinstance(encoding, Ragged):
            return Ragged(self._fold(encoding.values, columns), self._fold(encoding.mask, columns)[:, :, :1])
        return self._fold(encoding, columns)

    def _fold(self, values: Tensor, columns: int) -> Tensor:
        return values.unflatten(2, (-1, self.rows)).transpose(2, 3)[..., :columns]

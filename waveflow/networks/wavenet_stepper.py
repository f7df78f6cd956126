"""A causal WaveNet stack run sample by sample: ring buffers that are indexed, and all that can be known ahead."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from waveflow.context import Context, Ragged
from waveflow.networks.wavenet_weights import CausalWeights

ContextOfSamples = Callable[[int, int], Tensor]

_STRETCH = 64  # samples for which the gates' part that is known ahead is kept


class WaveNetStepper:
    r"""The function of a causal stack, one sample at a time, without gradients.

    Each layer's h is kept in a ring of (k - 1) d rows, whose row t mod (k - 1) d is read and then written at time t.
    What follows from older samples and from the context is summed ahead: the context once for a stretch of samples
    and all layers, the taps at h before now once for as many samples as their dilation allows, so that a layer
    with dilation d reads the weights of its older taps only every d steps. Memory does not grow with the length.

    Args:
        weights: of the stack.
        batch: B.
        context: (B, context_channels, T) of all samples to come, or None. Where that is more than should be held, a
            function that gives it for samples from ``start`` to before ``stop``, as ``context(start, stop)``, or up to
            their end where ``stop`` is behind it.

    Raises:
        ValueError: for a context that is missing or does not fit.
    """

    def __init__(self, weights: CausalWeights, batch: int, context: Context | ContextOfSamples = None):
        values = context.values if isinstance(context, Ragged) else context
        channels = weights.condition.shape[0]
        if channels and not callable(values) and (values is None or values.shape[:2] != (batch, channels)):
            got = None if values is None else tuple(values.shape)
            raise ValueError(f"WaveNetStepper expects a context ({batch}, {channels}, T), got {got}")
        self._context = values if channels else None
        self._time, self._params = 0, None
        with torch.inference_mode(), torch.autocast(weights.first.device.type, enabled=False):
            self._layers = LayersOfOneSample(weights, batch, _STRETCH)
            self._heard = Heard(weights, batch)
            self._rings = [ring.unbind() for ring in self._layers.rings]

    def params(self) -> Tensor:
        """Parameters of the next sample, (B, P)."""
        if self._params is None:
            with torch.inference_mode(), torch.autocast(self._layers.device.type, enabled=False):
                self._params = self._step()
        return self._params.clone()

    def push(self, x: Tensor) -> None:
        """Tell the next sample, (B,)."""
        if self._params is None:
            self.params()
        with torch.inference_mode():
            self._heard.write(self._time, x)
        self._time, self._params = self._time + 1, None

    def _step(self) -> Tensor:
        layers, time = self._layers, self._time
        place = time % _STRETCH
        if place == 0:
            layers.look_ahead(self._next_context())
        for i in layers.due[place]:
            layers.add_older(i, place, time)
        rows = [ring[time % len(ring)] for ring in self._rings]
        return layers(place, self._heard.window(time), rows)

    def _next_context(self) -> Tensor | None:
        if self._context is None:
            return None
        start, stop = self._time, self._time + _STRETCH
        part = self._context(start, stop) if callable(self._context) else self._context[..., start:stop]
        if not part.shape[2]:
            raise ValueError(f"WaveNetStepper has a context of {start} samples, and more were asked for")
        return part.permute(2, 0, 1)


class Heard:
    """The last numbers, each written twice, so that they always lie in a row.

    Args:
        weights: of the stack.
        batch: B.
    """

    def __init__(self, weights: CausalWeights, batch: int):
        taps = len(weights.first)
        self.length = 1 << (taps - 1).bit_length()
        self.values = weights.first.new_zeros(2 * self.length, batch)
        self._rows = self.values.unbind()
        self._windows = [self.values[i - taps : i].t() for i in range(self.length, 2 * self.length)]

    def window(self, time: int) -> Tensor:
        """Those before this time, (B, first_kernel), the newest last."""
        return self._windows[time % self.length]

    def write(self, time: int, x: Tensor) -> None:
        """Tell the number (B,) at this time."""
        row = time % self.length
        self._rows[row].copy_(x)
        self._rows[row + self.length].copy_(x)


class LayersOfOneSample:
    """The layers of a causal stack at one time, and what of their gates is known before.

    Args:
        weights: of the stack.
        batch: B.
        stretch: samples for which that is kept, a power of two.

    Attributes:
        rings: each layer's last h, ((k - 1) d, B, C), (1, B, C) where k is 1.
        due: for each place in the stretch, the layers whose older taps are to be added for the next of them.
        runs: for each layer, for how many that is.
        device: where it runs.
    """

    def __init__(self, weights: CausalWeights, batch: int, stretch: int):
        w = weights
        count, taps, channels, _ = w.gates.shape
        new, dilations = w.first.new_zeros, w.dilations.tolist()
        self.device = w.first.device
        self.rings = [new(max(1, (taps - 1) * dilation), batch, channels) for dilation in dilations]
        self.runs = [min(dilation, stretch) for dilation in dilations]
        older = range(count if taps > 1 else 0)
        self.due = [[i for i in older if place % self.runs[i] == 0] for place in range(stretch)]
        self._weights, self._dilations = w, dilations
        self._older = [gates[:-1].unbind() for gates in w.gates]
        self._ahead = new(count, stretch, batch, 2 * channels)
        self._ahead_rows = [ahead.unbind() for ahead in self._ahead]
        self._gates = new(batch, 2 * channels)
        self._a, self._b = self._gates.chunk(2, 1)
        self._mixed = new(batch, channels)
        self._activations = new(batch, count, channels)
        self._all_activations = self._activations.flatten(1)
        self._skip = w.mix[:, :, channels:].reshape(count * channels, channels).contiguous()
        self._skip_bias = w.mix_bias[:, channels:].sum(0)
        self._each = list(
            zip(
                self._ahead_rows,
                w.gates[:, -1].unbind(),
                self._activations.unbind(1),
                w.mix[:, :, :channels].contiguous().unbind(),
                w.mix_bias[:, :channels].unbind(),
                strict=True,
            )
        )

    def look_ahead(self, context: Tensor | None) -> None:
        """Begin a stretch, of which ``context`` (up to stretch, B, context_channels) is known."""
        w = self._weights
        self._ahead.copy_(w.gates_bias[:, None, None].expand_as(self._ahead))
        if context is not None:
            known = (context.to(w.first.dtype).flatten(0, 1) @ w.condition).unflatten(0, context.shape[:2])
            self._ahead[:, : len(context)] += known.unflatten(2, (len(self._ahead), -1)).permute(2, 0, 1, 3)

    def add_older(self, layer: int, place: int, time: int) -> None:
        """Add what a layer's older taps give to the next of its runs, which begins at this place and time."""
        run, ring = self.runs[layer], self.rings[layer]
        for j in range(len(self._older[layer])):
            begin = (time + j * self._dilations[layer]) % len(ring)  # (k - 1) d before now is where now is to be
            self.add_tap(layer, place, j, ring[begin : begin + run])

    def add_tap(self, layer: int, place: int, tap: int, h: Tensor) -> None:
        """Add what the layer's tap gives for h (samples, B, C) at so many samples from this place on."""
        ahead = self._ahead[layer, place : place + len(h)].flatten(0, 1)
        ahead.addmm_(h.flatten(0, 1), self._older[layer][tap])

    def __call__(self, place: int, window: Tensor, rows: Sequence[Tensor]) -> Tensor:
        """The stack's parameters (B, P).

        Args:
            place: in the stretch.
            window: the numbers before, (B, first_kernel).
            rows: (B, C) for each layer, where its h is written.
        """
        w, gates, a, b, mixed = self._weights, self._gates, self._a, self._b, self._mixed
        h = torch.addmm(w.first_bias, window, w.first, out=rows[0])
        last = len(rows) - 1
        for i, (ahead, now, activation, mix, bias) in enumerate(self._each):
            torch.addmm(ahead[place], h, now, out=gates)
            gates.tanh_()
            torch.addcmul(a, a, b, out=activation)
            if i < last:
                torch.addmm(bias, activation, mix, out=mixed)
                h = torch.add(mixed, h, alpha=w.residual, out=rows[i + 1])
        skips = torch.addmm(self._skip_bias, self._all_activations, self._skip)
        if w.post1 is not None:
            skips = torch.addmm(w.post1_bias, skips.relu_(), w.post1).relu_()
        return torch.addmm(w.post2_bias, skips, w.post2)

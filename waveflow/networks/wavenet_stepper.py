"""A causal WaveNet stack run sample by sample: ring buffers that are indexed, and all that can be known ahead."""

from collections.abc import Callable

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
        self._time, self._params = 0, None
        self._weights, self._batch = weights, batch
        self._context = values if channels else None
        with torch.inference_mode(), torch.autocast(weights.first.device.type, enabled=False):
            self._allocate()

    def params(self) -> Tensor:
        """Parameters of the next sample, (B, P); the tensor is written anew after ``push``."""
        if self._params is None:
            with torch.inference_mode(), torch.autocast(self._weights.first.device.type, enabled=False):
                self._params = self._step()
        return self._params.clone()

    def push(self, x: Tensor) -> None:
        """Tell the next sample, (B,)."""
        if self._params is None:
            self.params()
        with torch.inference_mode():
            taps = len(self._weights.first)
            for row in (self._time % taps, self._time % taps + taps):
                self._heard[row].copy_(x)
        self._time, self._params = self._time + 1, None

    def _allocate(self) -> None:
        w, batch = self._weights, self._batch
        layers, taps, channels, _ = w.gates.shape
        new = w.first.new_zeros
        # Each sample is written twice, so that the last ones always lie in a row.
        first_taps = len(w.first)
        heard = new(2 * first_taps, batch)
        self._heard = heard.unbind()
        self._windows = [heard[i : i + first_taps].t() for i in range(first_taps)]
        self._ahead = new(layers, _STRETCH, batch, 2 * channels)
        self._ahead_rows = [a.unbind() for a in self._ahead]
        self._rings, self._rows = [], []
        for dilation in w.dilations.tolist():
            ring = new(max(1, (taps - 1) * dilation), batch, channels)
            self._rings.append(ring)
            self._rows.append(ring.unbind())
        self._gates = new(batch, 2 * channels)
        self._a, self._b = self._gates.chunk(2, 1)
        self._activations = new(batch, layers, channels)
        self._mixed = new(batch, channels)
        self._layers = [
            (i, dilation, min(dilation, _STRETCH), older, now, w.mix[i, :, :channels].contiguous(), bias, out)
            for i, (dilation, older, now, bias, out) in enumerate(
                zip(
                    w.dilations.tolist(),
                    w.gates[:, :-1].unbind(),
                    w.gates[:, -1].unbind(),
                    w.mix_bias[:, :channels].unbind(),
                    self._activations.unbind(1),
                    strict=True,
                )
            )
        ]
        self._skip = w.mix[:, :, channels:].reshape(layers * channels, channels).contiguous()
        self._skip_bias = w.mix_bias[:, channels:].sum(0)
        self._flat = self._activations.reshape(batch, layers * channels)

    def _look_ahead(self) -> None:
        # The context's part of all layers' gates, for a stretch of samples.
        w = self._weights
        layers, length = self._ahead.shape[:2]
        self._ahead.copy_(w.gates_bias[:, None, None].expand_as(self._ahead))
        if self._context is not None:
            start, stop = self._time, self._time + length
            part = self._context(start, stop) if callable(self._context) else self._context[..., start:stop]
            if not part.shape[2]:
                raise ValueError(f"WaveNetStepper has a context of {start} samples, and more were asked for")
            part = part.to(w.first.dtype).permute(2, 0, 1)
            known = (part.flatten(0, 1) @ w.condition).reshape(*part.shape[:2], layers, -1)
            self._ahead[:, : len(part)] += known.permute(2, 0, 1, 3)

    def _step(self) -> Tensor:
        w, time = self._weights, self._time
        place = time % _STRETCH
        if place == 0:
            self._look_ahead()
        h = torch.addmm(w.first_bias, self._windows[time % len(w.first)], w.first)
        gates, a, b, mixed, residual = self._gates, self._a, self._b, self._mixed, w.residual
        for i, dilation, run, older, now, mix, bias, out in self._layers:
            rows = self._rows[i]
            if time % run == 0 and len(older):
                ring, ahead = self._rings[i], self._ahead[i, place : place + run].flatten(0, 1)
                for j, weight in enumerate(older):
                    begin = (time + j * dilation) % len(rows)  # (k - 1) d before now is where now is to be written
                    ahead.addmm_(ring[begin : begin + run].flatten(0, 1), weight)
            rows[time % len(rows)].copy_(h)
            torch.addmm(self._ahead_rows[i][place], h, now, out=gates)
            gates.tanh_()
            torch.addcmul(a, a, b, out=out)
            torch.addmm(bias, out, mix, out=mixed)
            h = torch.add(mixed, h, alpha=residual)
        skips = torch.addmm(self._skip_bias, self._flat, self._skip)
        if w.post1 is not None:
            skips = torch.addmm(w.post1_bias, skips.relu_(), w.post1).relu_()
        return torch.addmm(w.post2_bias, skips, w.post2)

"""Sampling from a causal WaveNet on a CPU: the whole loop over samples, layers and utterances, compiled.

What decides its speed is how often the weights come out of the cache. So the steps go by blocks, and what a block needs
of things that are known already is one product for many steps: the conditioning, and the older taps of a layer, which
for dilation d are known d steps ahead. Only the newest tap and the 1x1 product are streamed for every sample.
"""

from typing import NamedTuple

import numpy as np

from waveflow.kernels.compiled import compiled, compiled_within
from waveflow.kernels.tanh_fit import LIMIT, P, Q
from waveflow.kernels.wavenet_heads import draw, network_input
from waveflow.kernels.wavenet_tiles import LANES, add_product, pack, tile_width

_ROWS = 64  # steps times utterances: what one product of known things takes in

_LIMIT = np.float32(LIMIT)
_P0, _P1, _P2, _P3, _P4 = (np.float32(c) for c in P)
_, _Q1, _Q2, _Q3, _Q4 = (np.float32(c) for c in Q)
_ONE = np.float32(1)


class LoopWeights(NamedTuple):
    """A stack's weights packed for :func:`generate`; C and P are the channels and outputs, made multiples of 16.

    Attributes:
        first: tiles of (first_kernel, C), the newest tap last.
        start: (2C,), h before the first product, and the skip sum: 0.
        newest: tiles of (L, C, 2C).
        older: tiles of (L, k - 1, C, 2C), the newest last.
        condition: tiles of (L, context_channels, 2C).
        gates_bias: (L, 2C).
        mix: tiles of (L, C, 2C).
        mix_bias: (L, 2C).
        post1: tiles of (C, C); no tiles where there is no such layer.
        post1_bias: (C,).
        post2: tiles of (C, P).
        post2_bias: (P,).
        dilations: (L,).
        spans: (L, k - 1), for how many steps at once the product of an older tap is made.
        rings: (L + 1,), where each layer's memory begins, in steps.
        residual: what h is multiplied by before a layer's residual is added.
    """

    first: np.ndarray
    start: np.ndarray
    newest: np.ndarray
    older: np.ndarray
    condition: np.ndarray
    gates_bias: np.ndarray
    mix: np.ndarray
    mix_bias: np.ndarray
    post1: np.ndarray
    post1_bias: np.ndarray
    post2: np.ndarray
    post2_bias: np.ndarray
    dilations: np.ndarray
    spans: np.ndarray
    rings: np.ndarray
    residual: np.ndarray


class LoopState(NamedTuple):
    """What the loop keeps from one call to the next.

    Attributes:
        step: (1,), samples made.
        past: (B, 2 * first_kernel), the last inputs of the network, twice.
        rings: (steps, B, C), the layers' inputs as far back as their dilations reach.
        gates: (L, block, B, 2C), sums of what is known of the block's gates.
        sums: (B, 2C), h and the skip sum.
        activations: (B, C).
        hidden: (B, C).
        params: (B, P).
        work: (3, max(components, values)), float64.
    """

    step: np.ndarray
    past: np.ndarray
    rings: np.ndarray
    gates: np.ndarray
    sums: np.ndarray
    activations: np.ndarray
    hidden: np.ndarray
    params: np.ndarray
    work: np.ndarray


@compiled
def generate(weights, state, head, context, noise, out):
    """Make the next samples.

    Args:
        weights: :class:`LoopWeights`.
        state: :class:`LoopState`, moved on.
        head: :class:`~waveflow.kernels.wavenet_heads.Head`.
        context: (n, B, context_channels), at these samples.
        noise: (n, B).
        out: (n, B), written: what the head gives.
    """
    steps, batch = out.shape
    layers, block, _, width = state.gates.shape
    channels, history = width // 2, weights.first.shape[1]
    taps, size = weights.older.shape[1], out.itemsize
    like = out.dtype.type(0)
    sums = state.sums.ctypes.data
    for i in range(steps):
        t = state.step[0]
        k = t % block
        if k == 0:
            for layer in range(layers):
                for row in range(block):
                    for b in range(batch):
                        _copy(weights.gates_bias[layer], state.gates[layer, row, b])
        if k == 0 or i == 0:
            known = min(block - k, steps - i) * batch
            inputs = context.ctypes.data + i * batch * context.shape[2] * size
            for layer in range(layers if context.shape[2] else 0):
                gates = state.gates[layer, k].ctypes.data
                add_product(inputs, context.shape[2], known, weights.condition[layer], gates, width, like)

        for b in range(batch):
            _copy(weights.start, state.sums[b])
        window = state.past.ctypes.data + (t % history) * size
        add_product(window, 2 * history, batch, weights.first, sums, width, like)

        for layer in range(layers):
            start, end = weights.rings[layer], weights.rings[layer + 1]
            gates = state.gates[layer, k].ctypes.data
            for tap in range(taps):
                span = weights.spans[layer, tap]
                if t % span == 0:
                    back = (taps - tap) * weights.dilations[layer]
                    past = state.rings[start + (t - back) % (end - start)].ctypes.data
                    add_product(past, channels, span * batch, weights.older[layer, tap], gates, width, like)
            add_product(sums, width, batch, weights.newest[layer], gates, width, like)
            if end > start:
                now = start + t % (end - start)
                for b in range(batch):
                    _copy(state.sums[b, :channels], state.rings[now, b])
            for b in range(batch):
                _activate(state.gates[layer, k, b], state.activations[b])
                _carry(state.sums[b], weights.residual[0], weights.mix_bias[layer])
            add_product(state.activations.ctypes.data, channels, batch, weights.mix[layer], sums, width, like)

        answer, stride = sums + channels * size, width
        if weights.post1.shape[0]:
            for b in range(batch):
                _rectify(state.sums[b, channels:])
                _copy(weights.post1_bias, state.hidden[b])
            hidden = state.hidden.ctypes.data
            add_product(answer, stride, batch, weights.post1, hidden, channels, like)
            for b in range(batch):
                _rectify(state.hidden[b])
            answer, stride = hidden, channels
        for b in range(batch):
            _copy(weights.post2_bias, state.params[b])
        outputs = state.params.shape[1]
        add_product(answer, stride, batch, weights.post2, state.params.ctypes.data, outputs, like)

        for b in range(batch):
            value = draw(head, state.params[b], state.work, noise[i, b])
            out[i, b] = value
            seen = network_input(head, value)
            state.past[b, t % history] = seen
            state.past[b, t % history + history] = seen
        state.step[0] = t + 1


@compiled
def tanh(x):
    """tanh of a float32, within 8 units in the last place, by what a vector of numbers can do at once."""
    x = -_LIMIT if x < -_LIMIT else x
    x = _LIMIT if x > _LIMIT else x
    u = x * x
    p = (((_P4 * u + _P3) * u + _P2) * u + _P1) * u + _P0
    q = (((_Q4 * u + _Q3) * u + _Q2) * u + _Q1) * u + _ONE
    return x * p / q


@compiled_within
def _activate(gates, activations):
    """tanh(a) (1 + tanh(b)) of the two halves; the sigmoid's factors of 1/2 are in the weights."""
    n = len(activations)
    if gates.itemsize == 4:
        for c in range(n):
            activations[c] = tanh(gates[c]) * (_ONE + tanh(gates[n + c]))
    else:
        for c in range(n):
            activations[c] = np.tanh(gates[c]) * (1 + np.tanh(gates[n + c]))


@compiled_within
def _carry(sums, residual, bias):
    n = len(sums) // 2
    for c in range(n):
        sums[c] = sums[c] * residual + bias[c]
    for c in range(n, 2 * n):
        sums[c] += bias[c]


@compiled_within
def _copy(source, target):
    # What an assignment does, without its checks of shapes, which take seconds to compile.
    for c in range(len(source)):
        target[c] = source[c]


@compiled_within
def _rectify(x):
    for c in range(len(x)):
        x[c] = 0 if x[c] < 0 else x[c]


def pack_weights(
    first: np.ndarray,
    first_bias: np.ndarray,
    gates: np.ndarray,
    gates_bias: np.ndarray,
    condition: np.ndarray,
    mix: np.ndarray,
    mix_bias: np.ndarray,
    post1: np.ndarray | None,
    post1_bias: np.ndarray | None,
    post2: np.ndarray,
    post2_bias: np.ndarray,
    dilations: np.ndarray,
    residual: float,
    batch: int,
) -> LoopWeights:
    """Weights in the order in which the loop reads them, channels filled up with zeros to a multiple of 16.

    Args:
        first: (first_kernel, C), the newest tap last.
        gates: (L, k, C, 2C), the newest tap last; the sigmoid's half times 1/2.
        condition: (context_channels, L * 2C), likewise; (0, L * 2C) where there is no context.
        mix: (L, C, 2C), [residual | skip], times 1/2.
        post1: (C, C), None where there is no such layer.
        post2: (C, P).
        dilations: (L,).
        residual: what h is multiplied by at each layer.
        batch: utterances that are sampled together.
    """
    layers, taps, channels, _ = gates.shape
    more, outputs = -channels % LANES, post2.shape[1]

    def halves(x: np.ndarray) -> np.ndarray:
        """The last axis, two times C long, with both halves filled up."""
        x = x.reshape(*x.shape[:-1], 2, channels)
        x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, more)])
        return x.reshape(*x.shape[:-2], 2 * (channels + more))

    def fill(x: np.ndarray, axis: int, by: int = more) -> np.ndarray:
        return np.pad(x, [(0, by if a == axis % x.ndim else 0) for a in range(x.ndim)])

    def tiles(x: np.ndarray, rows: int = batch) -> np.ndarray:
        return pack(x, tile_width(x.shape[-1], rows))

    dtype = gates.dtype
    spans = np.ones((layers, taps - 1), np.int64)
    block = block_length(batch)
    sizes = [0]
    for layer, dilation in enumerate(dilations.tolist()):
        for tap in range(taps - 1):
            back = (taps - 1 - tap) * dilation
            spans[layer, tap] = min(block, back & -back)
        reach = (taps - 1) * dilation
        sizes.append(1 << (reach - 1).bit_length() if reach else 0)
    gates = fill(halves(gates), -2)
    condition = halves(condition.reshape(len(condition), layers, 2 * channels)).transpose(1, 0, 2)
    wide = channels + more
    return LoopWeights(
        tiles(fill(first, -1)),
        np.concatenate([fill(first_bias, -1), np.zeros(wide, dtype)]),
        tiles(gates[:, -1]),
        tiles(gates[:, :-1], _ROWS),
        tiles(condition, _ROWS),
        halves(gates_bias),
        tiles(fill(halves(mix), -2)),
        halves(mix_bias),
        np.zeros((0, wide, LANES), dtype) if post1 is None else tiles(fill(fill(post1, 0), 1)),
        np.zeros(wide, dtype) if post1_bias is None else fill(post1_bias, 0),
        tiles(fill(fill(post2, 0), 1, -outputs % LANES)),
        fill(post2_bias, 0, -outputs % LANES),
        np.asarray(dilations, np.int64),
        spans,
        np.cumsum(sizes),
        np.array([residual], dtype),
    )


def block_length(batch: int) -> int:
    """Steps whose known parts are computed together, a power of two."""
    return max(4, _ROWS >> (batch - 1).bit_length()) if batch else 1


def first_state(weights: LoopWeights, batch: int, work: int) -> LoopState:
    """The state before the first sample: silence. ``work``: the head's components or values, the larger."""
    dtype = weights.start.dtype
    layers, width = weights.gates_bias.shape
    return LoopState(
        np.zeros(1, np.int64),
        np.zeros((batch, 2 * weights.first.shape[1]), dtype),
        np.zeros((weights.rings[-1], batch, width // 2), dtype),
        np.zeros((layers, block_length(batch), batch, width), dtype),
        np.zeros((batch, width), dtype),
        np.zeros((batch, width // 2), dtype),
        np.zeros((batch, width // 2), dtype),
        np.zeros((batch, len(weights.post2_bias)), dtype),
        np.zeros((3, max(work, 1))),
    )

"""The layers of a WaveNet stack over many samples at once on a CPU, compiled: how students and WaveGlow are drawn.

A tile of samples goes through a layer from its inputs to its residual while it stays in the nearest caches: products
at the taps and of the context, gates, and the product of the activations. In float32.
"""

from typing import NamedTuple

import numpy as np

from waveflow.kernels.compiled import compiled, compiled_within
from waveflow.kernels.gated_rows import (
    OUTPUTS,
    PRODUCTS,
    TAPS,
    gate,
    gate_products,
    interpolate,
    transform_inputs,
    transform_taps,
)
from waveflow.kernels.wavenet_tiles import LANES, add_product, pack, set_product

_GATES = 2 * LANES  # width of a tile of gates: a and b of LANES channels
_SIZE, _LIKE = 4, np.float32(0)


class LayerWeights(NamedTuple):
    """A stack's weights packed for :func:`run`; C and S are the channels and skips, made multiples of 16.

    Attributes:
        taps: tiles of (L, k, channels, 2C), the newest tap last; a and b of 16 channels beside each other.
        factors: tiles of (L, 6, channels, 2C), the same for Winograd; without layers if there are not three taps.
        condition: tiles of (L, context_channels, 2C).
        of_frames: (context_channels, L * 2C), the same for all layers at once; without columns if not causal.
        gates_bias: (L, 2C).
        mix: tiles of (L, channels, C).
        mix_bias: (L, C).
        skip: tiles of (L, channels, S).
        skip_bias: (S,), of all layers and the end.
        dilations: (L,).
        ahead: (L,), steps after a sample that a layer hears.
        past: (L + 1,), where each layer's memory begins, in steps; none if it hears what comes after.
        edges: (2,), steps that may be heard before the first sample and after the last.
        residual: what h is multiplied by before a layer's residual is added.
    """

    taps: np.ndarray
    factors: np.ndarray
    condition: np.ndarray
    of_frames: np.ndarray
    gates_bias: np.ndarray
    mix: np.ndarray
    mix_bias: np.ndarray
    skip: np.ndarray
    skip_bias: np.ndarray
    dilations: np.ndarray
    ahead: np.ndarray
    past: np.ndarray
    edges: np.ndarray
    residual: np.ndarray


class Conditions(NamedTuple):
    """What the layers are told of n samples beside what they hear; nothing where both have no channels and frames.

    Attributes:
        context: (B, n, context_channels).
        frames: (B, F, L, 2C), what each layer's gates make of frames between which the context is linear, if any.
        left: (B, n), the frame before or at each sample.
        right: (B, n), the one after it.
        weight: (n,), that of the right one.
        lengths: (B,), samples of each utterance; the layers hear zeros behind them.
    """

    context: np.ndarray
    frames: np.ndarray
    left: np.ndarray
    right: np.ndarray
    weight: np.ndarray
    lengths: np.ndarray


class Workplace(NamedTuple):
    """Where one thread works. A tile is so many groups of four samples.

    Attributes:
        inputs: (6, groups, C), transformed.
        products: (6, groups, 32).
        gates: (tile, 32).
        activations: (tile, C).
    """

    inputs: np.ndarray
    products: np.ndarray
    gates: np.ndarray
    activations: np.ndarray


@compiled
def tiles_of(length, groups):
    """Tiles of so many samples."""
    return -(-length // (OUTPUTS * groups))


@compiled
def run(weights, past, rows, conditions, skips, work, layers, tiles, begins):
    """Some of the tiles through some of the layers, one after the other.

    Args:
        weights: :class:`LayerWeights`.
        past: (B, steps, C), the ends of all layers' inputs, moved on.
        rows: (2, B, edges[0] + n + edges[1], C), inputs of even and of odd layers; those of the first layer are given,
            and zeros at the edges.
        conditions: :class:`Conditions`.
        skips: (B, n, S), written.
        work: :class:`Workplace`.
        layers: the first, and where to stop. More than one only with all tiles: a layer needs the one before it whole.
        tiles: likewise; they are counted over all utterances.
        begins: whether to put before the inputs of each layer what was there, and to remember their end. To be done
            once, before the tiles.
    """
    length, groups = skips.shape[1], work.inputs.shape[1]
    of_each = tiles_of(length, groups)
    for layer in range(layers[0], layers[1]):
        if begins:
            _begin(weights, past, rows, layer)
        dilation = weights.dilations[layer]
        whole = 0
        if layer < len(weights.factors) and dilation & (dilation - 1) == 0:
            period = OUTPUTS * max(dilation, groups)
            whole = length // period * period // (OUTPUTS * groups)
        for i in range(tiles[0], tiles[1]):
            _tile(weights, rows, conditions, skips, work, layer, i // of_each, i % of_each, i % of_each < whole)


@compiled_within
def _begin(weights, past, rows, layer):
    start, end = weights.past[layer], weights.past[layer + 1]
    reach, length, front = end - start, rows.shape[2], weights.edges[0]
    for b in range(past.shape[0]):
        for i in range(reach):
            _copy(past[b, start + i], rows[layer % 2, b, front - reach + i])
        for i in range(reach):
            _copy(rows[layer % 2, b, length - reach + i], past[b, start + i])


@compiled_within
def _tile(weights, rows, conditions, skips, work, layer, b, tile, by_groups):
    """One tile through one layer, by groups of four outputs of Winograd's or sample by sample."""
    dilation, groups = weights.dilations[layer], work.inputs.shape[1]
    channels, width, taps = rows.shape[3], work.gates.shape[1], weights.taps.shape[1]
    # The four outputs of a group are a dilation apart, so a tile is one stretch of time or four.
    size, near, stretches = OUTPUTS * groups, min(dilation, groups), 1
    start, stretch = tile * size, min(size, skips.shape[1] - tile * size)
    if by_groups and dilation >= groups:
        stretches, stretch, parts = OUTPUTS, groups, dilation // groups
        start = tile // parts * OUTPUTS * dilation + tile % parts * groups
    between = near if stretches == 1 else stretch

    oldest = weights.edges[0] + weights.ahead[layer] - (taps - 1) * dilation
    source = rows[layer % 2, b].ctypes.data
    v, m = work.inputs.ctypes.data, work.products.ctypes.data
    gates, activations = work.gates.ctypes.data, work.activations.ctypes.data
    for group in range(groups if by_groups else 0):
        t = start + group // near * OUTPUTS * near + group % near
        x = source + (oldest + t) * channels * _SIZE
        for c in range(0, channels, LANES):
            to = v + (group * channels + c) * _SIZE
            transform_inputs(x + c * _SIZE, dilation * channels * _SIZE, to, groups * channels * _SIZE)

    for j in range(channels // LANES):
        for s in range(stretches):
            _know(weights, conditions, work, layer, j, b, start + s * dilation, s * stretch, stretch)
        bias = weights.gates_bias.ctypes.data + (layer * 2 * channels + j * width) * _SIZE
        out = activations + j * LANES * _SIZE
        if by_groups:
            for i in range(PRODUCTS):
                x, y = v + i * groups * channels * _SIZE, m + i * groups * width * _SIZE
                set_product(x, channels, groups, weights.factors[layer, i, j : j + 1], y, width, _LIKE)
            for group in range(groups):
                row = group if stretches > 1 else group // near * OUTPUTS * near + group % near
                gate_products(
                    m + group * width * _SIZE,
                    groups * width * _SIZE,
                    gates + row * width * _SIZE,
                    between * width * _SIZE,
                    bias,
                    out + row * channels * _SIZE,
                    between * channels * _SIZE,
                )
        else:
            for tap in range(taps):
                x = source + (oldest + start + tap * dilation) * channels * _SIZE
                add_product(x, channels, stretch, weights.taps[layer, tap, j : j + 1], gates, width, _LIKE)
            for row in range(stretch):
                gate(gates + row * width * _SIZE, bias, out + row * channels * _SIZE)
    for s in range(stretches):
        _mix(weights, rows, conditions, skips, work, layer, b, start + s * dilation, s * stretch, stretch)


@compiled_within
def _know(weights, conditions, work, layer, j, b, start, row, count):
    """Set gates from ``row`` on to what the conditions of samples from ``start`` on say."""
    length, known = conditions.context.shape[1:]
    width = work.gates.shape[1]
    gates = work.gates.ctypes.data + row * width * _SIZE
    if known:
        x = conditions.context.ctypes.data + (b * length + start) * known * _SIZE
        condition = weights.condition[layer, j : j + 1]
        whole = count // 8 * 8
        set_product(x, known, whole, condition, gates, width, _LIKE)
        if whole < count:
            _clear(work.gates[row + whole : row + count])
            rest, y = x + whole * known * _SIZE, gates + whole * width * _SIZE
            add_product(rest, known, count - whole, condition, y, width, _LIKE)
    elif conditions.frames.shape[1]:
        layers, channels = conditions.frames.shape[2:]
        stride = layers * channels * _SIZE
        frames = conditions.frames[b].ctypes.data + (layer * channels + j * width) * _SIZE
        for i in range(count):
            interpolate(
                frames + conditions.left[b, start + i] * stride,
                frames + conditions.right[b, start + i] * stride,
                conditions.weight.ctypes.data + (start + i) * _SIZE,
                gates + i * width * _SIZE,
            )
    else:
        _clear(work.gates[row : row + count])


@compiled_within
def _mix(weights, rows, conditions, skips, work, layer, b, start, row, count):
    """Residuals and skips of activations from ``row`` on, for the samples from ``start`` on."""
    channels, width, front = rows.shape[3], skips.shape[2], weights.edges[0]
    x = work.activations.ctypes.data + row * channels * _SIZE
    if layer + 1 < len(weights.dilations):
        now = slice(front + start, front + start + count)
        _carry(rows[layer % 2, b, now], weights.residual[0], weights.mix_bias[layer], rows[(layer + 1) % 2, b, now])
        out = rows[(layer + 1) % 2, b].ctypes.data + (front + start) * channels * _SIZE
        add_product(x, channels, count, weights.mix[layer], out, channels, _LIKE)
        if conditions.lengths[b] < start + count:
            behind = max(start, conditions.lengths[b])
            _clear(rows[(layer + 1) % 2, b, front + behind : front + start + count])
    if layer == 0:
        for i in range(start, start + count):
            _copy(weights.skip_bias, skips[b, i])
    out = skips[b].ctypes.data + start * width * _SIZE
    add_product(x, channels, count, weights.skip[layer], out, width, _LIKE)


@compiled_within
def _carry(h, residual, bias, out):
    for i in range(h.shape[0]):
        for c in range(h.shape[1]):
            out[i, c] = h[i, c] * residual + bias[c]


@compiled_within
def _clear(x):
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            x[i, c] = 0


@compiled_within
def _copy(source, target):
    # What an assignment does, without its checks of shapes, which take seconds to compile.
    for c in range(len(source)):
        target[c] = source[c]


def pack_layers(
    gates: np.ndarray,
    gates_bias: np.ndarray,
    condition: np.ndarray,
    mix: np.ndarray,
    skip: np.ndarray,
    mix_bias: np.ndarray,
    skip_bias: np.ndarray,
    dilations: np.ndarray,
    residual: float,
    causal: bool,
) -> LayerWeights:
    """Weights in the order in which the layers read them, multiplied out in float64, given in float32.

    Args:
        gates: (L, k, channels, 2 channels), the newest tap last; the sigmoid's half times 1/2.
        gates_bias: (L, 2 channels), likewise.
        condition: (context_channels, L * 2 channels), likewise; (0, L * 2 channels) where there is no context.
        mix: (L, channels, channels), times 1/2.
        skip: (L, channels, skips), times 1/2.
        mix_bias: (L, channels).
        skip_bias: (skips,).
        dilations: (L,).
        residual: what h is multiplied by at each layer.
        causal: whether the newest tap hears what is now; else the one in the middle does.
    """
    layers, taps, channels, _ = gates.shape
    wide = channels + -channels % LANES

    def beside(x: np.ndarray) -> np.ndarray:
        """The last axis, [a | b], filled up, and by vectors of the two in turn."""
        x = np.pad(x.reshape(*x.shape[:-1], 2, channels), [(0, 0)] * x.ndim + [(0, wide - channels)])
        x = x.reshape(*x.shape[:-1], wide // LANES, LANES)
        return np.swapaxes(x, -3, -2).reshape(*x.shape[:-3], 2 * wide)

    def fill(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % LANES)])

    def tiles(x: np.ndarray) -> np.ndarray:
        width = x.shape[-1]
        return pack(x.astype(np.float32), 2 * LANES if width % (2 * LANES) == 0 else LANES)

    condition = beside(condition.reshape(len(condition), layers, 2 * channels))
    of_frames = condition.reshape(len(condition), layers * 2 * wide)[:, : None if causal else 0]
    spread = beside(gates)
    heard = (taps - 1) * np.asarray(dilations, np.int64)
    ahead = 0 * heard if causal else heard // 2
    return LayerWeights(
        tiles(spread),
        tiles(transform_taps(spread) if taps == TAPS else np.zeros((0, PRODUCTS, channels, _GATES))),
        tiles(np.swapaxes(condition, 0, 1)),
        of_frames.astype(np.float32),
        beside(gates_bias).astype(np.float32),
        tiles(fill(mix)),
        fill(mix_bias).astype(np.float32),
        tiles(fill(skip)),
        fill(skip_bias).astype(np.float32),
        np.asarray(dilations, np.int64),
        ahead,
        np.cumsum([0, *(heard if causal else ahead - ahead)]),
        np.array([max(heard - ahead), max(ahead)]),
        np.array([residual], np.float32),
    )


def workplace(channels: int) -> Workplace:
    """For one thread; channels: C, a multiple of 16. The wider the layers, the more samples should share a weight."""
    groups = 32 if channels < 128 else 64
    return Workplace(
        np.empty((PRODUCTS, groups, channels), np.float32),
        np.empty((PRODUCTS, groups, _GATES), np.float32),
        np.empty((OUTPUTS * groups, _GATES), np.float32),
        np.empty((OUTPUTS * groups, channels), np.float32),
    )

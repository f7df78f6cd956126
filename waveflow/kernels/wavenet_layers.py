"""The layers of a causal WaveNet stack over many samples at once on a CPU, compiled: what a student is drawn with.

A tile of samples goes through a layer from its inputs to its residual while it stays in the nearest caches: products
at the taps and of the context, gates, and the product of the activations. In float32.
"""

from typing import NamedTuple

import numpy as np

from waveflow.kernels.compiled import compiled
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
_GROUPS = 32  # of four outputs, in a tile
TILE = OUTPUTS * _GROUPS
"""Samples of a tile."""


class LayerWeights(NamedTuple):
    """A stack's weights packed for :func:`run`; C and S are the channels and skips, made multiples of 16.

    Attributes:
        taps: tiles of (L, k, channels, 2C), the newest tap last; a and b of 16 channels beside each other.
        factors: tiles of (L, 6, channels, 2C), the same for Winograd; without layers if there are not three taps.
        condition: tiles of (L, context_channels, 2C).
        of_frames: (context_channels, L * 2C), the same for all layers at once.
        gates_bias: (L, 2C).
        mix: tiles of (L, channels, C).
        mix_bias: (L, C).
        skip: tiles of (L, channels, S).
        skip_bias: (S,), of all layers and the end.
        dilations: (L,).
        past: (L + 1,), where each layer's memory begins, in steps.
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
    past: np.ndarray
    residual: np.ndarray


class Conditions(NamedTuple):
    """What the layers are told of n samples beside what they hear; nothing where both have no channels and frames.

    Attributes:
        context: (B, n, context_channels).
        frames: (B, F, L, 2C), what each layer's gates make of frames between which the context is linear, if any.
        left: (B, n), the frame before or at each sample.
        right: (B, n), the one after it.
        weight: (n,), that of the right one.
    """

    context: np.ndarray
    frames: np.ndarray
    left: np.ndarray
    right: np.ndarray
    weight: np.ndarray


class Workplace(NamedTuple):
    """Where one thread works.

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
def run(weights, past, rows, conditions, skips, work, layers, tiles, begins):
    """Some of the tiles through some of the layers, one after the other.

    Args:
        weights: :class:`LayerWeights`.
        past: (B, steps, C), the ends of all layers' inputs, moved on.
        rows: (2, B, front + n, C), inputs of even and of odd layers after the ``front`` steps that were before; those
            of the first layer are given.
        conditions: :class:`Conditions`.
        skips: (B, n, S), written.
        work: :class:`Workplace`.
        layers: the first, and where to stop. More than one only with all tiles: a layer needs the one before it whole.
        tiles: likewise; they are counted over all utterances.
        begins: whether to put before the inputs of each layer what was there, and to remember their end. To be done
            once, before the tiles.
    """
    length = skips.shape[1]
    of_each = -(-length // TILE)
    for layer in range(layers[0], layers[1]):
        if begins:
            _begin(weights, past, rows, layer)
        dilation = weights.dilations[layer]
        whole = 0
        if layer < len(weights.factors) and dilation & (dilation - 1) == 0:
            period = max(OUTPUTS * dilation, TILE)
            whole = length // period * period // TILE
        for i in range(tiles[0], tiles[1]):
            _tile(weights, rows, conditions, skips, work, layer, i // of_each, i % of_each, i % of_each < whole)


@compiled
def _begin(weights, past, rows, layer):
    start, end = weights.past[layer], weights.past[layer + 1]
    reach, length = end - start, rows.shape[2]
    front = _front(weights)
    for b in range(past.shape[0]):
        for i in range(reach):
            _copy(past[b, start + i], rows[layer % 2, b, front - reach + i])
        for i in range(reach):
            _copy(rows[layer % 2, b, length - reach + i], past[b, start + i])


@compiled
def _tile(weights, rows, conditions, skips, work, layer, b, tile, by_groups):
    """One tile through one layer, by groups of four outputs of Winograd's or sample by sample."""
    dilation, front = weights.dilations[layer], _front(weights)
    channels, width, taps = rows.shape[3], work.gates.shape[1], weights.taps.shape[1]
    # The four outputs of a group are a dilation apart, so a tile is one stretch of time or four.
    start, stretches, stretch, near = tile * TILE, 1, min(TILE, skips.shape[1] - tile * TILE), min(dilation, _GROUPS)
    if by_groups and dilation >= _GROUPS:
        stretches, stretch, parts = OUTPUTS, _GROUPS, dilation // _GROUPS
        start = tile // parts * OUTPUTS * dilation + tile % parts * _GROUPS
    between = near if stretches == 1 else stretch

    source = rows[layer % 2, b].ctypes.data
    v, m = work.inputs.ctypes.data, work.products.ctypes.data
    gates, activations = work.gates.ctypes.data, work.activations.ctypes.data
    for group in range(_GROUPS if by_groups else 0):
        t = start + group // near * OUTPUTS * near + group % near
        x = source + (front + t - 2 * dilation) * channels * _SIZE
        for c in range(0, channels, LANES):
            to = v + (group * channels + c) * _SIZE
            transform_inputs(x + c * _SIZE, dilation * channels * _SIZE, to, _GROUPS * channels * _SIZE)

    for j in range(channels // LANES):
        for s in range(stretches):
            _know(weights, conditions, work, layer, j, b, start + s * dilation, s * stretch, stretch)
        bias = weights.gates_bias.ctypes.data + (layer * 2 * channels + j * width) * _SIZE
        out = activations + j * LANES * _SIZE
        if by_groups:
            for i in range(PRODUCTS):
                x, y = v + i * _GROUPS * channels * _SIZE, m + i * _GROUPS * width * _SIZE
                set_product(x, channels, _GROUPS, weights.factors[layer, i, j : j + 1], y, width, _LIKE)
            for group in range(_GROUPS):
                row = group if stretches > 1 else group // near * OUTPUTS * near + group % near
                gate_products(
                    m + group * width * _SIZE,
                    _GROUPS * width * _SIZE,
                    gates + row * width * _SIZE,
                    between * width * _SIZE,
                    bias,
                    out + row * channels * _SIZE,
                    between * channels * _SIZE,
                )
        else:
            for tap in range(taps):
                x = source + (front + start - (taps - 1 - tap) * dilation) * channels * _SIZE
                add_product(x, channels, stretch, weights.taps[layer, tap, j : j + 1], gates, width, _LIKE)
            for row in range(stretch):
                gate(gates + row * width * _SIZE, bias, out + row * channels * _SIZE)
    for s in range(stretches):
        _mix(weights, rows, skips, work, layer, b, start + s * dilation, s * stretch, stretch)


@compiled
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


@compiled
def _mix(weights, rows, skips, work, layer, b, start, row, count):
    """Residuals and skips of activations from ``row`` on, for the samples from ``start`` on."""
    channels, width = rows.shape[3], skips.shape[2]
    front = _front(weights)
    x = work.activations.ctypes.data + row * channels * _SIZE
    if layer + 1 < len(weights.dilations):
        now = slice(front + start, front + start + count)
        _carry(rows[layer % 2, b, now], weights.residual[0], weights.mix_bias[layer], rows[(layer + 1) % 2, b, now])
        out = rows[(layer + 1) % 2, b].ctypes.data + (front + start) * channels * _SIZE
        add_product(x, channels, count, weights.mix[layer], out, channels, _LIKE)
    if layer == 0:
        for i in range(start, start + count):
            _copy(weights.skip_bias, skips[b, i])
    out = skips[b].ctypes.data + start * width * _SIZE
    add_product(x, channels, count, weights.skip[layer], out, width, _LIKE)


@compiled
def _front(weights):
    reach = 0
    for layer in range(len(weights.dilations)):
        reach = max(reach, weights.past[layer + 1] - weights.past[layer])
    return reach


@compiled
def _carry(h, residual, bias, out):
    for i in range(h.shape[0]):
        for c in range(h.shape[1]):
            out[i, c] = h[i, c] * residual + bias[c]


@compiled
def _clear(x):
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            x[i, c] = 0


@compiled
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
    spread = beside(gates)
    reach = [0, *((taps - 1) * dilations).tolist()]
    return LayerWeights(
        tiles(spread),
        tiles(transform_taps(spread) if taps == TAPS else np.zeros((0, PRODUCTS, channels, _GATES))),
        tiles(np.swapaxes(condition, 0, 1)),
        condition.reshape(len(condition), layers * 2 * wide).astype(np.float32),
        beside(gates_bias).astype(np.float32),
        tiles(fill(mix)),
        fill(mix_bias).astype(np.float32),
        tiles(fill(skip)),
        fill(skip_bias).astype(np.float32),
        np.asarray(dilations, np.int64),
        np.cumsum(reach),
        np.array([residual], np.float32),
    )


def workplace(channels: int) -> Workplace:
    """For one thread; channels: C, a multiple of 16."""
    return Workplace(
        np.empty((PRODUCTS, _GROUPS, channels), np.float32),
        np.empty((PRODUCTS, _GROUPS, _GATES), np.float32),
        np.empty((TILE, _GATES), np.float32),
        np.empty((TILE, channels), np.float32),
    )

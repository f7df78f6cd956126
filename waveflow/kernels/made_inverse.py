"""The inverse of a linear autoregressive map whose network is a MADE of ReLUs, compiled for CPUs.

What ``Sequential`` does with a stepper, in one call: bookkeeping of PyTorch takes longer than small products do.
"""

import numpy as np
import torch
from torch import Tensor

from waveflow.errors import InputError
from waveflow.kernels.compiled import compiled, compiled_within

_TILE = 64  # items of the batch whose activations are kept together, in the caches next to the processor


def invert(
    z: Tensor,
    weights: Tensor,
    biases: Tensor,
    widths: Tensor,
    ends: Tensor,
    order: Tensor,
    bound: float,
    standardised: bool,
) -> tuple[Tensor, Tensor]:
    r"""Solve for x, feature by feature, with (m, r) the network's answer to the features before and :math:`l = b
    \tanh(r / b)`: :math:`z = (x - m) e^{-l}` if ``standardised``, else :math:`z = x e^l + m`.

    Args:
        z: (B, D), float32 or float64, as all floats here.
        weights: of all layers, each (units, inputs), flattened and one after the other. Units are sorted by degree,
            features by order, outputs are [m, r] of the first feature in order, [m, r] of the second and so on.
        biases: (units of all layers, 1), or (..., B) where a context moves them.
        widths: (layers + 1,): D, the units of each hidden layer, 2 D.
        ends: (layers + 1, D + 1): of the numbers that layer k takes, ``ends[k, n + 1]`` follow from n features.
        order: (D,), the features from first to last.
        bound: b.
        standardised: whether the map is ``Standardise``, else ``Affine``.

    Returns:
        x (B, D), and the log-det (B,) of the inverse.

    Raises:
        InputError: for another number of features or, where biases follow from a context, of items.
    """
    if z.ndim != 2 or z.shape[1] != len(order) or biases.shape[1] not in (1, len(z)):
        raise InputError(
            f"a compiled inverse expects (B, {len(order)}) and biases for 1 or B items, got {tuple(z.shape)} and "
            f"{biases.shape[1]}"
        )
    x, log_det = torch.empty_like(z, memory_format=torch.contiguous_format), z.new_zeros(len(z))
    arrays = (t.numpy(force=True) for t in (z.contiguous(), weights, biases, widths, ends, order, x, log_det))
    _invert(*arrays, float(bound), standardised)
    return x, log_det


@compiled
def _invert(z, weights, biases, widths, ends, order, x, log_det, bound, standardised):
    # A tile of activations is (units of all layers, _TILE), with 3 rows to spare behind each layer.
    layers = len(widths) - 1
    first = np.zeros(layers + 2, np.int64)
    for k in range(layers + 1):
        first[k + 1] = first[k] + widths[k] + 3
    tile = np.zeros(first[-1] * _TILE, z.dtype)
    zero, bound = z.dtype.type(0), z.dtype.type(bound)
    for start in range(0, len(z), _TILE):
        size = min(_TILE, len(z) - start)
        for n in range(z.shape[1]):
            weight, bias = 0, 0
            for k in range(layers):
                ins, outs = widths[k], widths[k + 1]
                of_layer = weights[weight : weight + ins * outs].reshape(outs, ins)
                row, end = ends[k + 1, n], ends[k + 1, n + 1]
                inputs, outputs = tile[first[k] * _TILE :], tile[first[k + 1] * _TILE : first[k + 2] * _TILE]
                _fill(outputs, biases[bias : bias + outs], row, end, start, size)
                _add_product(outputs, of_layer, inputs, row, end, ends[k, n + 1])
                if k < layers - 1:
                    for j in range(row * _TILE, end * _TILE):
                        outputs[j] = zero if outputs[j] < zero else outputs[j]  # NaN stays
                weight, bias = weight + ins * outs, bias + outs
            shift = tile[(first[layers] + 2 * n) * _TILE :]
            raw, known, place = shift[_TILE:], tile[n * _TILE :], order[n]
            for j in range(size):
                log_scale = bound * np.tanh(raw[j] / bound)
                if standardised:
                    known[j] = z[start + j, place] * np.exp(log_scale) + shift[j]
                else:
                    log_scale = -log_scale
                    known[j] = (z[start + j, place] - shift[j]) * np.exp(log_scale)
                x[start + j, place] = known[j]
                log_det[start + j] += log_scale


@compiled_within
def _fill(outputs, biases, row, end, start, size):
    for r in range(row, end):
        y = outputs[r * _TILE : (r + 1) * _TILE]
        if biases.shape[1] == 1:
            y[:] = biases[r, 0]
        else:
            y[:size] = biases[r, start : start + size]


@compiled_within
def _add_product(outputs, weight, inputs, row, end, count):
    # Four rows by four inputs at a time: each number read is used four times. Behind ``end`` there are rows that come
    # later, or to spare, and are filled anew before they are used.
    last = len(weight) - 1
    for r in range(row, end, 4):
        a, b, c, d = weight[r], weight[min(r + 1, last)], weight[min(r + 2, last)], weight[min(r + 3, last)]
        y = outputs[r * _TILE : (r + 4) * _TILE]
        fours = count // 4 * 4
        for i in range(0, fours, 4):
            x = inputs[i * _TILE : (i + 4) * _TILE]
            a0, a1, a2, a3 = a[i], a[i + 1], a[i + 2], a[i + 3]
            b0, b1, b2, b3 = b[i], b[i + 1], b[i + 2], b[i + 3]
            c0, c1, c2, c3 = c[i], c[i + 1], c[i + 2], c[i + 3]
            d0, d1, d2, d3 = d[i], d[i + 1], d[i + 2], d[i + 3]
            for j in range(_TILE):
                x0, x1, x2, x3 = x[j], x[_TILE + j], x[2 * _TILE + j], x[3 * _TILE + j]
                y[j] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                y[_TILE + j] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                y[2 * _TILE + j] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                y[3 * _TILE + j] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3
        for i in range(fours, count):
            x = inputs[i * _TILE : (i + 1) * _TILE]
            a0, b0, c0, d0 = a[i], b[i], c[i], d[i]
            for j in range(_TILE):
                y[j] += a0 * x[j]
                y[_TILE + j] += b0 * x[j]
                y[2 * _TILE + j] += c0 * x[j]
                y[3 * _TILE + j] += d0 * x[j]

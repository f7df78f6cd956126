"""The Levinson-Durbin recursion compiled for CPUs, with its gradient."""

import numpy as np
import torch
from torch import Tensor

from waveflow.kernels.compiled import compiled, differentiate, map_by_folding
from waveflow.kernels.levinson import solve_plain


@torch.library.custom_op("waveflow::levinson_durbin", mutates_args=(), device_types="cpu")
def solve(autocorrelation: Tensor) -> Tensor:
    r = autocorrelation.numpy(force=True)
    k = np.empty((*r.shape[:-1], r.shape[-1] - 1), r.dtype)
    _solve(_rows(r), _rows(k))
    return torch.from_numpy(k)


@torch.library.custom_op("waveflow::levinson_durbin_gradient", mutates_args=(), device_types="cpu")
def gradient(k_bar: Tensor, autocorrelation: Tensor) -> Tensor:
    r = autocorrelation.numpy(force=True)
    r_bar = np.zeros(r.shape, r.dtype)
    _gradient(_rows(k_bar.numpy(force=True)), _rows(r), _rows(r_bar))
    return torch.from_numpy(r_bar)


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(int(np.prod(array.shape[:-1])), array.shape[-1])


@compiled
def _solve(r, k):
    order = k.shape[1]
    a, before = np.zeros(order + 1), np.zeros(order + 1)
    for i in range(r.shape[0]):
        error = r[i, 0]
        for m in range(1, order + 1):
            numerator = r[i, m]
            for j in range(1, m):
                numerator -= a[j] * r[i, m - j]
            k[i, m - 1] = reflection = numerator / error
            before[1:m] = a[1:m]
            for j in range(1, m):
                a[j] = before[j] - reflection * before[m - j]
            a[m] = reflection
            error *= 1 - reflection * reflection


@compiled
def _gradient(k_bar, r, r_bar):
    order = k_bar.shape[1]
    a = np.zeros((order + 1, order + 1))  # the predictors of all orders
    k, error = np.zeros(order + 1), np.zeros(order + 1)
    a_bar, after = np.zeros(order + 1), np.zeros(order + 1)
    for i in range(r.shape[0]):
        error[0] = r[i, 0]
        for m in range(1, order + 1):
            numerator = r[i, m]
            for j in range(1, m):
                numerator -= a[m - 1, j] * r[i, m - j]
            k[m] = numerator / error[m - 1]
            for j in range(1, m):
                a[m, j] = a[m - 1, j] - k[m] * a[m - 1, m - j]
            a[m, m] = k[m]
            error[m] = error[m - 1] * (1 - k[m] * k[m])
        a_bar[:] = 0
        error_bar = 0.0
        for m in range(order, 0, -1):
            through_k = k_bar[i, m - 1] + a_bar[m] - 2 * k[m] * error[m - 1] * error_bar
            for j in range(1, m):
                through_k -= a_bar[j] * a[m - 1, m - j]
            through_numerator = through_k / error[m - 1]
            error_bar = error_bar * (1 - k[m] * k[m]) - through_numerator * k[m]
            r_bar[i, m] += through_numerator
            after[1:m] = a_bar[1:m]
            for j in range(1, m):
                a_bar[j] = after[j] - k[m] * after[m - j] - through_numerator * r[i, m - j]
                r_bar[i, m - j] -= through_numerator * a[m - 1, j]
        r_bar[i, 0] += error_bar


@solve.register_fake
def _(autocorrelation):
    return torch.empty_like(autocorrelation[..., 1:], memory_format=torch.contiguous_format)


@gradient.register_fake
def _(k_bar, autocorrelation):
    return torch.empty_like(autocorrelation, memory_format=torch.contiguous_format)


differentiate(solve, gradient, solve_plain)
map_by_folding(solve)
map_by_folding(gradient)

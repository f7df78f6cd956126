"""The normalised lattice compiled for CPUs: analysis, synthesis, and what their gradients need.

The gradients of the synthesis are implicit: v = F(x, k) is linear in x, so where x = F^-1(v) the adjoint filter turns a
gradient at x into one at v, and the gradient of the analysis tells what that means for k and the state.
"""

import numpy as np
import torch
from torch import Tensor

from waveflow.kernels.compiled import compiled, differentiate, map_by_folding
from waveflow.kernels.lattice import analyse_plain


@torch.library.custom_op("waveflow::lattice_analysis", mutates_args=(), device_types="cpu")
def analyse(x: Tensor, reflection: Tensor, state: Tensor, block: int, start: bool) -> Tensor:
    x, reflection, state = (t.numpy(force=True) for t in (x, reflection, state))
    v = x.copy()
    _analyse(v, reflection, state, block, start)
    return torch.from_numpy(v)


@torch.library.custom_op("waveflow::lattice_analysis_gradient", mutates_args=(), device_types="cpu")
def analysis_gradient(
    v_bar: Tensor, x: Tensor, reflection: Tensor, state: Tensor, block: int, start: bool
) -> tuple[Tensor, Tensor, Tensor]:
    v_bar, x, reflection, state = (t.numpy(force=True) for t in (v_bar, x, reflection, state))
    x_bar, reflection_bar, state_bar = v_bar.copy(), np.zeros_like(reflection), np.zeros_like(state)
    _analysis_gradient(x_bar, x, reflection, state, block, start, reflection_bar, state_bar)
    return torch.from_numpy(x_bar), torch.from_numpy(reflection_bar), torch.from_numpy(state_bar)


@torch.library.custom_op("waveflow::lattice_synthesis", mutates_args=(), device_types="cpu")
def synthesise(v: Tensor, reflection: Tensor, state: Tensor, block: int, start: bool) -> tuple[Tensor, Tensor]:
    v, reflection, state = (t.numpy(force=True) for t in (v, reflection, state))
    x, state = np.empty_like(v), state.copy()
    _synthesise(v, reflection, state, block, start, x)
    return torch.from_numpy(x), torch.from_numpy(state)


@torch.library.custom_op("waveflow::lattice_synthesis_adjoint", mutates_args=(), device_types="cpu")
def synthesise_adjoint(x_bar: Tensor, reflection: Tensor, block: int, start: bool) -> Tensor:
    x_bar, reflection = (t.numpy(force=True) for t in (x_bar, reflection))
    v_bar = np.empty_like(x_bar)
    _synthesise_adjoint(x_bar, reflection, block, start, v_bar)
    return torch.from_numpy(v_bar)


@compiled
def _analyse(v, reflection, state, block, start):
    samples, order = v.shape[1], reflection.shape[2]
    b, delayed = np.empty(samples, v.dtype), np.empty(samples, v.dtype)
    for i in range(v.shape[0] if samples else 0):
        f = v[i]
        b[:] = f
        for m in range(order):
            delayed[0] = state[i, m]
            delayed[1:] = b[:-1]
            if start:
                b[: m + 1] = 0
            for n in range(-(-samples // block)):
                k = reflection[i, n, m]
                c = 1 / np.sqrt(1 - k * k)
                for t in range(max(n * block, m + 1 if start else 0), min((n + 1) * block, samples)):
                    lower = f[t]
                    f[t] = (lower - k * delayed[t]) * c
                    b[t] = (delayed[t] - k * lower) * c


@compiled
def _analysis_gradient(f_bar, x, reflection, state, block, start, reflection_bar, state_bar):
    samples, order = x.shape[1], reflection.shape[2]
    lower, delayed = np.empty((order, samples), x.dtype), np.empty((order, samples), x.dtype)
    f, b, b_bar = np.empty(samples, x.dtype), np.empty(samples, x.dtype), np.empty(samples, x.dtype)
    for i in range(x.shape[0] if samples else 0):
        f[:] = x[i]
        b[:] = f
        for m in range(order):
            lower[m] = f
            delayed[m, 0] = state[i, m]
            delayed[m, 1:] = b[:-1]
            if start:
                b[: m + 1] = 0
            for n in range(-(-samples // block)):
                k = reflection[i, n, m]
                c = 1 / np.sqrt(1 - k * k)
                for t in range(max(n * block, m + 1 if start else 0), min((n + 1) * block, samples)):
                    f[t] = (lower[m, t] - k * delayed[m, t]) * c
                    b[t] = (delayed[m, t] - k * lower[m, t]) * c
        b_bar[:] = 0
        for m in range(order - 1, -1, -1):
            if start:
                b_bar[: m + 1] = 0
            for n in range(-(-samples // block)):
                k = reflection[i, n, m]
                c = 1 / np.sqrt(1 - k * k)
                total = 0.0
                for t in range(max(n * block, m + 1 if start else 0), min((n + 1) * block, samples)):
                    total += f_bar[i, t] * (k * lower[m, t] - delayed[m, t])
                    total += b_bar[t] * (k * delayed[m, t] - lower[m, t])
                    upper = f_bar[i, t]
                    f_bar[i, t] = (upper - k * b_bar[t]) * c
                    b_bar[t] = (b_bar[t] - k * upper) * c
                reflection_bar[i, n, m] = total * c * c * c
            state_bar[i, m] = b_bar[0]
            b_bar[:-1] = b_bar[1:]
            b_bar[-1] = 0
        f_bar[i] += b_bar


@compiled
def _synthesise(v, reflection, state, block, start, x):
    order = reflection.shape[2]
    scale = np.sqrt(1 - reflection * reflection)
    for i in range(v.shape[0]):
        b = state[i]
        for t in range(v.shape[1]):
            k, c = reflection[i, t // block], scale[i, t // block]
            f = v[i, t]
            for m in range(min(order, t) if start else order, 0, -1):
                lower = b[m - 1]
                if m < order:
                    b[m] = c[m - 1] * lower - k[m - 1] * f
                f = c[m - 1] * f + k[m - 1] * lower
            b[0] = x[i, t] = f


@compiled
def _synthesise_adjoint(x_bar, reflection, block, start, v_bar):
    order = reflection.shape[2]
    scale = np.sqrt(1 - reflection * reflection)
    b_bar = np.empty(order + 1, x_bar.dtype)
    for i in range(x_bar.shape[0]):
        b_bar[:] = 0
        for t in range(x_bar.shape[1] - 1, -1, -1):
            k, c = reflection[i, t // block], scale[i, t // block]
            f_bar = x_bar[i, t] + b_bar[0]
            for m in range(1, (min(order, t) if start else order) + 1):
                upper = b_bar[m]
                b_bar[m - 1] = k[m - 1] * f_bar + c[m - 1] * upper
                f_bar = c[m - 1] * f_bar - k[m - 1] * upper
            v_bar[i, t] = f_bar


@analyse.register_fake
def _(x, reflection, state, block, start):
    return torch.empty_like(x)


@analysis_gradient.register_fake
def _(v_bar, x, reflection, state, block, start):
    return torch.empty_like(x), torch.empty_like(reflection), torch.empty_like(state)


@synthesise.register_fake
def _(v, reflection, state, block, start):
    return torch.empty_like(v), torch.empty_like(state)


@synthesise_adjoint.register_fake
def _(x_bar, reflection, block, start):
    return torch.empty_like(x_bar)


def _keep_synthesis(ctx, inputs, output):
    _, reflection, state, ctx.block, ctx.start = inputs
    ctx.save_for_backward(output[0], reflection, state)


def _through_synthesis(ctx, x_bar, _):
    x, reflection, state = ctx.saved_tensors
    v_bar = synthesise_adjoint(x_bar, reflection, ctx.block, ctx.start)
    _, reflection_bar, state_bar = analysis_gradient(v_bar, x, reflection, state, ctx.block, ctx.start)
    return v_bar, -reflection_bar, -state_bar, None, None


def _keep_adjoint(ctx, inputs, output):
    _, reflection, ctx.block, ctx.start = inputs
    ctx.save_for_backward(output, reflection)


def _through_adjoint(ctx, grad):
    v_bar, reflection = ctx.saved_tensors
    silence = grad.new_zeros(grad.shape[0], reflection.shape[2])
    y, _ = synthesise(grad, reflection, silence, ctx.block, ctx.start)
    _, reflection_bar, _ = analysis_gradient(v_bar, y, reflection, silence, ctx.block, ctx.start)
    return y, -reflection_bar, None, None


differentiate(analyse, analysis_gradient, analyse_plain)
synthesise.register_autograd(_through_synthesis, setup_context=_keep_synthesis)
synthesise_adjoint.register_autograd(_through_adjoint, setup_context=_keep_adjoint)
for _operator in (analyse, analysis_gradient, synthesise, synthesise_adjoint):
    map_by_folding(_operator)

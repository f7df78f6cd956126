"""The normalised lattice's synthesis and its adjoint, compiled for CPUs.

Both are operators of PyTorch, so that ``torch.compile`` and ``torch.func.vmap`` take them as they are. Their gradients
are implicit: v = F(x, k) is linear in x, so where x = F^-1(v) the adjoint filter turns a gradient at x into one at
v, and the analysis of x tells what reaches k.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from waveflow.kernels.lattice import lattice_analysis


@torch.library.custom_op("waveflow::lattice_synthesis", mutates_args=(), device_types="cpu")
def synthesise(v: Tensor, reflection: Tensor, block: int, state: Tensor, start: bool) -> tuple[Tensor, Tensor]:
    x, state = np.empty(v.shape, v.numpy().dtype), state.numpy(force=True).copy()
    _synthesise(v.numpy(force=True), reflection.numpy(force=True), block, state, start, x)
    return torch.from_numpy(x), torch.from_numpy(state)


@torch.library.custom_op("waveflow::lattice_synthesis_adjoint", mutates_args=(), device_types="cpu")
def synthesise_adjoint(x_bar: Tensor, reflection: Tensor, block: int, start: bool) -> Tensor:
    v_bar = np.empty(x_bar.shape, x_bar.numpy().dtype)
    _synthesise_adjoint(x_bar.numpy(force=True), reflection.numpy(force=True), block, start, v_bar)
    return torch.from_numpy(v_bar)


@numba.njit(nogil=True)
def _synthesise(v, reflection, block, state, start, x):
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


@numba.njit(nogil=True)
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


@synthesise.register_fake
def _(v, reflection, block, state, start):
    return torch.empty_like(v), torch.empty_like(state)


@synthesise_adjoint.register_fake
def _(x_bar, reflection, block, start):
    return torch.empty_like(x_bar)


def _save_for_synthesis(ctx, inputs, output):
    _, reflection, ctx.block, state, ctx.start = inputs
    ctx.save_for_backward(output[0], reflection, state)
    ctx.mark_non_differentiable(output[1])


def _backward_of_synthesis(ctx, x_bar, _):
    x, reflection, state = ctx.saved_tensors
    v_bar = synthesise_adjoint(x_bar, reflection, ctx.block, ctx.start)
    reflection_bar, state_bar = _through_analysis(v_bar, x, reflection, ctx.block, None if ctx.start else state)
    return v_bar, reflection_bar, None, state_bar, None


def _save_for_adjoint(ctx, inputs, output):
    _, reflection, ctx.block, ctx.start = inputs
    ctx.save_for_backward(output, reflection)


def _backward_of_adjoint(ctx, grad):
    v_bar, reflection = ctx.saved_tensors
    nothing = torch.zeros_like(reflection[:, 0])
    y, _ = synthesise(grad, reflection, ctx.block, nothing, ctx.start)
    reflection_bar, _ = _through_analysis(v_bar, y, reflection, ctx.block, None if ctx.start else nothing)
    return y, reflection_bar, None, None


def _through_analysis(v_bar, x, reflection, block, state):
    """What the gradient ``v_bar`` at v means for the filters and the state, x being kept."""
    if state is None:
        _, pull = torch.func.vjp(lambda k: lattice_analysis(x, k, block), reflection)
        return -pull(v_bar)[0], None
    _, pull = torch.func.vjp(lambda k, s: lattice_analysis(x, k, block, s), reflection, state)
    return tuple(-bar for bar in pull(v_bar))


synthesise.register_autograd(_backward_of_synthesis, setup_context=_save_for_synthesis)
synthesise_adjoint.register_autograd(_backward_of_adjoint, setup_context=_save_for_adjoint)


@synthesise.register_vmap
def _(info, in_dims, v, reflection, block, state, start):
    (v, reflection, state), batch = _fold(info, (in_dims[0], in_dims[1], in_dims[3]), (v, reflection, state))
    x, state = synthesise(v, reflection, block, state, start)
    return (x.unflatten(0, batch), state.unflatten(0, batch)), (0, 0)


@synthesise_adjoint.register_vmap
def _(info, in_dims, x_bar, reflection, block, start):
    (x_bar, reflection), batch = _fold(info, in_dims[:2], (x_bar, reflection))
    return synthesise_adjoint(x_bar, reflection, block, start).unflatten(0, batch), 0


def _fold(info, in_dims, tensors):
    """The mapped axis of each tensor merged into its batch, and the two sizes to part them again."""
    tensors = [
        t.movedim(d, 0) if d is not None else t.expand(info.batch_size, *t.shape)
        for t, d in zip(tensors, in_dims, strict=True)
    ]
    return [t.flatten(0, 1) for t in tensors], tensors[0].shape[:2]

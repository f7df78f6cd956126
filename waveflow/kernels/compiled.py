"""Compiling for the CPU, and what makes the result an operator of PyTorch: gradients of every order, and ``vmap``."""

from collections.abc import Callable
from pathlib import Path

import numba
import torch
from torch import Tensor
from torch.library import CustomOpDef

# Sums may be reordered and multiply-adds fused; NaN and infinity keep their meaning, and division by 0 is no error.
_SETTINGS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"}}


def compiled(function: Callable) -> Callable:
    """Compile by numba, kept on disk from one process to the next where there is a place to keep it."""
    try:
        dispatcher = numba.njit(cache=True, **_SETTINGS)(function)
        _outdate_with_neighbours(dispatcher)
        return dispatcher
    except RuntimeError:  # neither the package's folder nor a cache folder can be written
        return numba.njit(**_SETTINGS)(function)


def compiled_within(function: Callable) -> Callable:
    """Compile what compiled code alone calls, without the ways in from Python, which take a quarter of the time."""
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_SETTINGS)(function)


def _outdate_with_neighbours(dispatcher: Callable) -> None:
    # Numba looks at the date of the function's own file alone, but what is compiled in comes from its neighbours too.
    kept = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if hasattr(kept, "_source_stamp"):
        dates = [(path.name, path.stat().st_mtime_ns) for path in sorted(Path(__file__).parent.glob("*.py"))]
        kept._source_stamp = (kept._source_stamp, *dates)


def differentiate(operator: CustomOpDef, gradient: CustomOpDef, plain: Callable) -> None:
    """Give an operator its compiled gradient, and that one its own from the plain twin.

    Args:
        operator: takes tensors, then other things, and returns a tensor.
        gradient: takes the gradient at that tensor and the arguments of ``operator``, and returns a gradient for each
            of its tensors.
        plain: what ``operator`` computes, in PyTorch.
    """

    def of_operator(ctx, bar):
        bars = gradient(bar, *ctx.saved_tensors, *ctx.rest)
        return (*_tuple(bars), *(None for _ in ctx.rest))

    def of_gradient(ctx, *bars):
        rest, values = ctx.rest, ctx.saved_tensors
        with torch.enable_grad():
            _, pull = torch.func.vjp(
                lambda bar, *tensors: torch.func.vjp(lambda *t: plain(*t, *rest), *tensors)[1](bar), *values
            )
            bars = [torch.zeros_like(v) if b is None else b for b, v in zip(bars, values[1:], strict=True)]
            return (*pull(tuple(bars)), *(None for _ in rest))

    operator.register_autograd(of_operator, setup_context=_keep)
    gradient.register_autograd(of_gradient, setup_context=_keep)


def map_by_folding(operator: CustomOpDef) -> None:
    """Let ``torch.func.vmap`` of an operator fold the mapped axis into the batch that all its tensors begin with."""

    @operator.register_vmap
    def _(info, in_dims, *arguments):
        folded, batch = [], None
        for argument, axis in zip(arguments, in_dims, strict=True):
            if isinstance(argument, Tensor):
                expanded = argument.expand(info.batch_size, *argument.shape)
                argument = expanded if axis is None else argument.movedim(axis, 0)
                batch = argument.shape[:2]
                argument = argument.flatten(0, 1)
            folded.append(argument)
        out = operator(*folded)
        if isinstance(out, Tensor):
            return out.unflatten(0, batch), 0
        return tuple(o.unflatten(0, batch) for o in out), tuple(0 for _ in out)


def _keep(ctx, inputs, output) -> None:
    tensors = [i for i in inputs if isinstance(i, Tensor)]
    ctx.save_for_backward(*tensors)
    ctx.rest = inputs[len(tensors) :]


def _tuple(out: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (out,) if isinstance(out, Tensor) else tuple(out)

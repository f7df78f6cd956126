"""Backpropagation through a chain of invertible maps that stores only its result."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from waveflow.context import Context, Ragged
from waveflow.first_batch import no_first_batch

Step = tuple[Callable, Callable]  # (apply, undo), each (values, context) -> (values, log_det)


def run_reversibly(
    steps: Sequence[Step], x: Tensor, context: Context, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Apply ``steps`` to ``x``; on the way back rebuild the input of each from its output.

    Args:
        steps: pairs (apply, undo).
        x: (B, ...).
        context: conditioning that every step is given, or None.
        parameters: all tensors that require gradients and on which the steps depend, besides ``x`` and ``context``.

    The steps must give the same when run again: no dropout.

    Returns:
        The result and the sum of the log-dets (B,); gradients flow to ``x``, ``context`` and ``parameters``.
    """
    ragged = isinstance(context, Ragged)
    values, mask = context if ragged else (context, None)
    return _Reversible.apply(steps, x, values, mask, *parameters)


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(ctx, steps, x, values, mask, *parameters):
        ctx.steps, ctx.parameters = steps, parameters
        device = x.device.type
        # Without the cache: a cast made under no_grad would be found again in the backward pass, cut off from its
        # weight.
        ctx.autocast = {
            "device_type": device,
            "enabled": torch.is_autocast_enabled(device),
            "dtype": torch.get_autocast_dtype(device),
            "cache_enabled": False,
        }
        context = values if mask is None else Ragged(values, mask)
        log_det = torch.zeros(x.shape[0], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        with torch.autocast(**ctx.autocast):
            for apply, _ in steps:
                x, term = apply(x, context)
                log_det = log_det + term
        ctx.save_for_backward(x, values, mask)
        ctx.versions = [p._version for p in parameters]
        return x, log_det

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_x, grad_log_det):
        x, values, mask = ctx.saved_tensors
        if [p._version for p in ctx.parameters] != ctx.versions:
            raise RuntimeError('a parameter was changed between the forward and the backward pass of memory="invert"')
        wants_context = values is not None and ctx.needs_input_grad[2]
        grad_values = torch.zeros_like(values) if wants_context else None
        gradients: dict[int, Tensor] = {}
        # Room for all gradients is taken at once: taken one by one, between activations that come and go, they would
        # tear holes into the heap. It is made from the incoming gradients so that it is batched where they are (vmap).
        like = grad_x.sum() + grad_log_det.sum()
        room = {id(p): like.new_empty(p.shape, dtype=p.dtype, device=p.device) for p in ctx.parameters}
        for apply, undo in reversed(ctx.steps):
            if values is not None:
                values = values.detach().requires_grad_(wants_context)
            context = values if mask is None else Ragged(values, mask)
            with torch.autocast(**ctx.autocast):
                with torch.no_grad(), no_first_batch():
                    x, _ = undo(x, context)
                x = x.detach().requires_grad_()
                with torch.enable_grad():
                    outputs = apply(x, context)
            used = [pair for pair in zip(outputs, (grad_x, grad_log_det), strict=True) if pair[0].requires_grad]
            inputs = [x, *([values] if wants_context else []), *ctx.parameters]
            grads = torch.autograd.grad(
                [output for output, _ in used], inputs, [grad for _, grad in used], allow_unused=True
            )
            grad_x = grads[0] if grads[0] is not None else torch.zeros_like(x)
            if wants_context and grads[1] is not None:
                grad_values = grad_values + grads[1]
            for parameter, grad in zip(ctx.parameters, grads[1 + wants_context :], strict=True):
                if grad is not None:
                    known = gradients.get(id(parameter))
                    gradients[id(parameter)] = (
                        room.pop(id(parameter)).copy_(grad) if known is None else known.add_(grad)
                    )
            x = x.detach()
        return None, grad_x, grad_values, None, *(gradients.get(id(p)) for p in ctx.parameters)

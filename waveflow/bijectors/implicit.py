"""Gradients of an autoregressive inverse by the implicit function theorem, whatever found the inverse."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from waveflow.bijectors.base import sum_event
from waveflow.context import Context, Ragged

if TYPE_CHECKING:
    from waveflow.bijectors.autoregressive import Autoregressive


def is_transformed(x: Tensor) -> bool:
    """Whether ``torch.func`` or a vectorised backward pass is at work: x then may have no values to decide upon."""
    # What torch itself asks, in autograd.Function.apply and in Tensor.__repr__; nothing public answers it.
    return torch._C._are_functorch_transforms_active() or torch._C._functorch.is_legacy_batchedtensor(x)


def solve_differentiably(bijector: "Autoregressive", z: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    r"""``bijector.solve(z, context)`` with gradients to z, the context and the parameters.

    With :math:`z = f(x; \theta)`, L the log-det of the inverse and gradients :math:`g_x, g_L` of what follows,

    .. math::
        u = J^{-T} \left(g_x + \tfrac{\partial L}{\partial x}^T g_L\right), \qquad
        \bar z = u, \qquad
        \bar\theta = -\tfrac{\partial f}{\partial \theta}^T u + \tfrac{\partial L}{\partial \theta}^T g_L.

    J is triangular, so that Jacobi's iteration for u, each round a backward pass, ends after at most one round for each
    place and mostly after far fewer. A backward pass that is itself to be differentiated goes through
    ``inverse_by_passes`` instead.

    Returns:
        x (B, \*event) and the log-det of the inverse (B,).
    """
    values, mask = context if isinstance(context, Ragged) else (context, None)
    named = dict(bijector.named_parameters())
    return _ImplicitInverse.apply(bijector, tuple(named), z, values, mask, *named.values())


class _ImplicitInverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, bijector, names, z, values, mask, *parameters):
        device = z.device.type
        # Without the cache: a cast made under no_grad would be found again where gradients are wanted.
        ctx.autocast = {
            "device_type": device,
            "enabled": torch.is_autocast_enabled(device),
            "dtype": torch.get_autocast_dtype(device),
            "cache_enabled": False,
        }
        with torch.autocast(**ctx.autocast):
            x, log_det, *_ = bijector.solve(z, values if mask is None else Ragged(values, mask))
        ctx.bijector, ctx.names = bijector, names
        ctx.save_for_backward(z, x, values, mask, *parameters)
        return x, log_det

    @staticmethod
    def backward(ctx, grad_x, grad_log_det):
        z, x, values, mask, *parameters = ctx.saved_tensors
        wanted = (ctx.needs_input_grad[2], ctx.needs_input_grad[3], *ctx.needs_input_grad[5:])

        def call(method: Callable, values: Tensor | None, parameters: Sequence[Tensor], *inputs: Tensor):
            context = values if mask is None else Ragged(values, mask)
            named = {f"bijector.{name}": p for name, p in zip(ctx.names, parameters, strict=True)}
            return functional_call(_Method(ctx.bijector, method), named, (*inputs, context))

        pull_back = _pull_back_by_passes if torch.is_grad_enabled() else _pull_back
        with torch.enable_grad(), torch.autocast(**ctx.autocast):
            of_z, of_values, *rest = pull_back(call, z, x, values, parameters, wanted, grad_x, grad_log_det)
        return None, None, of_z, of_values, None, *rest


class _Method(nn.Module):
    # functional_call swaps the parameters of a module while its forward runs; this makes a forward of any function.
    def __init__(self, bijector: nn.Module, method: Callable):
        super().__init__()
        self.bijector, self.method = bijector, method

    def forward(self, *inputs):
        return self.method(self.bijector, *inputs)


def _pull_back_by_passes(call, z, x, values, parameters, wanted, grad_x, grad_log_det):
    # func.vjp and not autograd.grad, which would also follow paths from the parameters through z.
    inputs = [z, values, *parameters]

    def inverse(*chosen):
        chosen = iter(chosen)
        z, values, *parameters = (next(chosen) if w else t for t, w in zip(inputs, wanted, strict=True))
        return call(lambda b, z, context: b.inverse_by_passes(z, context), values, parameters, z)

    _, pull = torch.func.vjp(inverse, *(t for t, w in zip(inputs, wanted, strict=True) if w))
    gradients = iter(pull((grad_x, grad_log_det)))
    return [next(gradients) if w else None for w in wanted]


def _pull_back(call, z, x, values, parameters, wanted, grad_x, grad_log_det):
    values, *parameters = (
        t if t is None else t.detach().requires_grad_(w) for t, w in zip((values, *parameters), wanted[1:], strict=True)
    )
    transformed, seen = (x.detach().requires_grad_() for _ in range(2))  # apart, since J = diagonal + what is seen

    def encode(bijector, transformed, seen, context):
        z, log_derivative = bijector.univariate(transformed, bijector.conditioner(seen, context))
        return z, sum_event(log_derivative)

    z, log_det = call(encode, values, parameters, transformed, seen)
    if log_det.requires_grad:
        for term in _grad([log_det], [transformed, seen], [-grad_log_det]):
            grad_x = grad_x + term
    (slope,) = _grad([z.sum()], [transformed], [None])
    u = grad_x / slope
    for _ in range(x[0].numel() if len(x) else 0):
        before, u = u, (grad_x - _grad([z], [seen], [u])[0]) / slope
        if not is_transformed(u) and _same(u, before):
            break
    chosen = [t for t, w in zip((values, *parameters), wanted[1:], strict=True) if w]
    gradients = iter(_grad([z, log_det], chosen, [-u, -grad_log_det]) if chosen else ())
    return [u, *(next(gradients) if w else None for w in wanted[1:])]


def _grad(outputs, inputs, gradients):
    used = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
    outputs, gradients = [output for output, _ in used], [gradient for _, gradient in used]
    return torch.autograd.grad(outputs, inputs, gradients, retain_graph=True, materialize_grads=True)


def _same(a: Tensor, b: Tensor) -> bool:
    a, b = a.flatten(1), b.flatten(1)
    scale = a.abs().amax(1, keepdim=True)
    return bool(((a - b).abs() <= torch.finfo(a.dtype).eps * scale).all())

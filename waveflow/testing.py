"""Checks that bijectors and autoregressive networks keep their contracts, the library's own and users' own."""

import copy

import torch
from torch import Tensor, nn

from waveflow.bijectors.base import Bijector, log_det_dtype
from waveflow.bijectors.solvers import order_of
from waveflow.context import Context, Ragged


def check_bijector(
    bijector: Bijector, x: Tensor, context: Context = None, tolerance: float = 1e-7, perturbation: float = 0.1
) -> None:
    """Check everything that the contract of :class:`~waveflow.bijectors.Bijector` promises, in float64.

    The checks run on a copy in float64 with every parameter perturbed by N(0, ``perturbation``), since layers that
    start at zero would pass empty: inverse both ways; log-det of both directions against the autograd Jacobian and
    against each other; dtypes and shapes (float32 too); independence of the items of a batch; gradients that reach
    every parameter and the context; a constant log-det that is one; state-dict round trip; empty batch.

    Args:
        bijector: the map; it is left as it was.
        x: a few events (B, ...), B >= 2, at most some hundred numbers each.
        context: conditioning, or None.
        tolerance: allowed absolute error, per number and per log-det.
        perturbation: standard deviation of what is added to the parameters.

    Raises:
        ValueError: for fewer than two events.
        AssertionError: naming every check that failed and by how much.
    """
    if len(x) < 2:
        raise ValueError(f"check_bijector expects at least 2 events, got {len(x)}")
    generator = torch.Generator().manual_seed(0)
    f = copy.deepcopy(bijector).double()
    x, context = x.detach().double(), _map_context(context, lambda t: t.detach().double())
    f.train()
    with torch.no_grad():
        f.inverse(f(x, context)[0], context)  # data-dependent initialisation comes before the perturbation
        for parameter in f.parameters():
            parameter.add_(perturbation * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    failures: list[str] = []

    def require(name: str, error: float | Tensor, allowed: float = tolerance) -> None:
        error = float(error)
        if not error <= allowed:  # also when NaN
            failures.append(f"{name}: off by {error:.3g} (allowed {allowed:.3g})")

    def gap(a: Tensor, b: Tensor) -> Tensor:
        if a.shape != b.shape:
            failures.append(f"shapes {tuple(a.shape)} and {tuple(b.shape)} differ")
            return torch.tensor(0.0)
        return (a - b).abs().max() if a.numel() else torch.tensor(0.0)

    with torch.no_grad():
        z, log_det = f(x, context)
        rebuilt, inverse_log_det = f.inverse(z, context)
        again, _ = f(rebuilt, context)
    if not all(t.isfinite().all() for t in (z, log_det, rebuilt, inverse_log_det)):
        failures.append("values or log-dets are not finite")
    require("inverse(forward(x)) = x", gap(rebuilt, x))
    require("forward(inverse(z)) = z", gap(again, z))
    require("the two log-dets are opposite", gap(log_det, -inverse_log_det))
    if z.shape[1:].numel() != x.shape[1:].numel() or z.shape[0] != x.shape[0]:
        raise AssertionError(
            f"{type(bijector).__name__} changes the number of elements, {tuple(x.shape)} to {tuple(z.shape)}"
        )
    if tuple(z.shape[1:]) != f.output_shape(tuple(x.shape[1:])):
        failures.append(f"output_shape says {f.output_shape(tuple(x.shape[1:]))}, z has {tuple(z.shape[1:])}")

    for direction, call, point, value in (("forward", f, x, log_det), ("inverse", f.inverse, z, inverse_log_det)):
        if value.shape != (len(x),) or value.dtype != torch.float64:
            failures.append(f"{direction}: log_det is {tuple(value.shape)} {value.dtype}, expected ({len(x)},) float64")
            continue
        jacobian = torch.autograd.functional.jacobian(lambda t, call=call: call(t, context)[0], point, vectorize=True)
        jacobian = jacobian.reshape(len(x), x[0].numel(), len(x), x[0].numel())
        own = torch.stack([torch.linalg.slogdet(jacobian[i, :, i])[1] for i in range(len(x))])
        require(f"{direction} log-det against autograd", gap(value, own), tolerance * x[0].numel())
        others = [jacobian[i, :, j].abs().max() for i in range(len(x)) for j in range(len(x)) if i != j]
        require(f"{direction}: items of a batch are independent", torch.stack(others).max() if others else 0.0, 0.0)

    _check_gradients(f, x, context, failures)
    if f.constant_log_det:
        with torch.no_grad():
            moved = f(x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype), context)[1]
        require("constant_log_det", gap(moved, log_det))

    twin = copy.deepcopy(bijector).double()
    twin.load_state_dict(f.state_dict())
    with torch.no_grad():
        require("state_dict round trip", gap(twin(x, context)[0], z), 0.0)
        nothing, no_log_det = f(x[:0], _map_context(context, lambda t: t[:0]))
        if nothing.shape != (0, *z.shape[1:]) or no_log_det.shape != (0,):
            failures.append(f"empty batch gave {tuple(nothing.shape)} and log-det {tuple(no_log_det.shape)}")
        back, no_log_det = f.inverse(nothing, _map_context(context, lambda t: t[:0]))
        if back.shape != (0, *x.shape[1:]) or no_log_det.shape != (0,):
            failures.append(f"empty batch came back as {tuple(back.shape)} and log-det {tuple(no_log_det.shape)}")
        single, single_log_det = copy.deepcopy(f).float()(x.float(), _map_context(context, lambda t: t.float()))
        if single.dtype != torch.float32 or single_log_det.dtype != log_det_dtype(single):
            failures.append(f"float32 gave {single.dtype} and a log-det of {single_log_det.dtype}")
    if failures:
        raise AssertionError(f"{type(bijector).__name__} breaks the bijector contract:\n  " + "\n  ".join(failures))


@torch.no_grad()
def check_causal(
    network: nn.Module,
    x: Tensor,
    context: Context = None,
    order: Tensor | None = None,
    tolerance: float = 1e-9,
    perturbation: float = 0.1,
) -> None:
    r"""Check that an autoregressive network gives at each position what follows from the positions before it alone.

    The checks run on a copy in float64 with every parameter perturbed by N(0, ``perturbation``). For every position in
    order, the inputs there and after it are replaced by noise: its output, and all outputs before, must not change. It
    must change somewhere when inputs before it do, since a network that ignores its input would pass empty. If the
    network has a stepper, see :class:`~waveflow.bijectors.Autoregressive`, its parameters must be those of the pass.

    Args:
        network: called as ``network(x, context)``, giving (B, P, \*event) for x (B, \*event), or as many numbers
            in the same order; it is left as it was.
        x: a few events, B >= 2, at most some hundred numbers each.
        context: conditioning, or None.
        order: flat positions of an event from first to last, (D,) or, for several at a time, (steps, k); by default
            ``network.positions(event)`` or, without that, as they lie in memory.
        tolerance: allowed absolute change, and difference of the stepper.
        perturbation: standard deviation of what is added to the parameters.

    Raises:
        ValueError: for fewer than two events.
        AssertionError: naming the position that sees what it must not, or what else failed.
    """
    if len(x) < 2:
        raise ValueError(f"check_causal expects at least 2 events, got {len(x)}")
    generator = torch.Generator().manual_seed(0)
    f = copy.deepcopy(network).double()
    x, context = x.detach().double(), _map_context(context, lambda t: t.detach().double())
    for parameter in f.parameters():
        parameter.add_(perturbation * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    if order is None:
        order = order_of(f, x)
    name, size = type(network).__name__, x[0].numel()
    if order.flatten().sort().values.tolist() != list(range(size)):
        raise AssertionError(f"{name} has an order that is no permutation of its {size} positions")
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).flatten(1)

    def run(flat: Tensor) -> Tensor:
        return f(flat.reshape(x.shape), context).reshape(len(x), -1, size)

    flat = x.flatten(1)
    outputs, sees = run(flat), False
    for step, places in enumerate(order):
        before, rest = order[:step].flatten(), order[step:].flatten()
        changed = run(flat.index_copy(1, rest, noise[:, rest]))
        own = torch.cat([before, places.reshape(-1)])
        error = (changed - outputs)[..., own].abs().amax((0, 1))
        if not error.max() <= tolerance:
            worst = int(own[error.argmax()])
            raise AssertionError(
                f"{name} is not causal: the output at {worst} changes by {error.max():.3g} with inputs at step {step} "
                "or later"
            )
        if step:
            moved = run(flat.index_copy(1, before, noise[:, before]))
            sees = sees or bool(((moved - outputs)[..., places.reshape(-1)].abs() > tolerance).any())
    if len(order) > 1 and not sees:
        raise AssertionError(f"{name} ignores its input")
    if hasattr(f, "stepper"):
        stepper = f.stepper(len(x), context)
        for step, places in enumerate(order):
            error = (stepper.params() - outputs[..., places]).abs().max()
            if not error <= tolerance:
                raise AssertionError(f"{name}'s stepper is off by {error:.3g} at step {step}")
            stepper.push(flat[:, places])


def _check_gradients(f: Bijector, x: Tensor, context: Context, failures: list[str]) -> None:
    generator = torch.Generator().manual_seed(1)
    context = _map_context(context, lambda t: t.clone().requires_grad_())
    for direction, call in (("forward", f), ("inverse", f.inverse)):
        f.zero_grad()
        point = (x if direction == "forward" else f(x, context)[0]).detach().requires_grad_()
        value, log_det = call(point, context)
        (value * torch.randn(value.shape, generator=generator, dtype=value.dtype)).sum().add(log_det.sum()).backward()
        for name, parameter in f.named_parameters():
            if parameter.requires_grad and (parameter.grad is None or not parameter.grad.isfinite().all()):
                failures.append(f"{direction}: no finite gradient reaches {name}")
            elif parameter.requires_grad and not parameter.grad.any():
                failures.append(f"{direction}: the gradient of {name} is zero")
        values = context.values if isinstance(context, Ragged) else context
        if values is not None and f.needs_context and (values.grad is None or not values.grad.any()):
            failures.append(f"{direction}: no gradient reaches the context")


def _map_context(context: Context, function) -> Context:
    if isinstance(context, Ragged):
        return Ragged(function(context.values), function(context.mask).detach())
    return None if context is None else function(context)

"""What a teacher must be: a density in one parallel pass, of the student's events, that learns nothing itself."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from waveflow.bijectors import Autoregressive, Bijector, Inverse
from waveflow.context import Context
from waveflow.distributions import Flow
from waveflow.errors import InputError
from waveflow.models import PretrainedModel, load_model

Density = Flow | nn.Module | Callable[..., Tensor]
"""A flow, a model that has one as ``flow``, or a function of x (N, \\*event) [and the context] to log p (N,)."""


def load_teacher(source: str | os.PathLike, device: torch.device | str = "cpu") -> PretrainedModel:
    """A teacher's checkpoint: its averaged weights, frozen, in evaluation mode.

    Args:
        source: a folder written by ``save_pretrained``, such as that of a recipe's run, or a hub id.
        device: where the student is; the teacher is put there, wherever it was trained.

    Raises:
        InputError: if there is no such checkpoint, or it is of a model that cannot teach: one without a continuous
            density, one whose density has to be solved for, or one that is not autoregressive, which needs no student.
    """
    model = load_model(source, device)
    name = type(model).__name__
    try:
        flow = flow_of(model)
    except InputError:
        raise InputError(f"{source}: holds a {name}, which has no continuous density to take gradients of") from None
    require_parallel_density(flow, f"{source}: the {name}")
    if not any(isinstance(module, Autoregressive) for module in flow.modules()):
        raise InputError(f"{source}: expected an autoregressive teacher, got a {name}, which draws in one pass itself")
    return model.requires_grad_(False)


def flow_of(model: nn.Module) -> Flow:
    """The flow that a model is, or has as ``flow``; also where DDP or Fabric wrap it.

    Raises:
        InputError: if there is none.
    """
    bare = getattr(model, "module", model)
    flow = bare if isinstance(bare, Flow) else getattr(bare, "flow", None)
    if not isinstance(flow, Flow):
        raise InputError(f"distillation expects a flow, or a model that has one, got {type(bare).__name__}")
    return flow


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within it the module is in evaluation mode and its parameters take no gradients; afterwards as they were.

    Gradients still pass *through* the module to what it is given.
    """
    modes = {part: part.training for part in module.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in module.parameters()}
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
        for parameter, requires_grad in wanted.items():
            parameter.requires_grad_(requires_grad)


def frozen_log_prob(teacher: Density) -> Callable[..., Tensor]:
    """The teacher's log-density as a function of x and context; of a module, :func:`frozen` for the call."""
    if not isinstance(teacher, nn.Module):
        return teacher
    flow = flow_of(teacher)

    def log_prob(x: Tensor, context: Context = None) -> Tensor:
        with frozen(flow):
            return flow.log_prob(x, context)

    return log_prob


def require_parallel_density(flow: Flow, name: str = "the teacher") -> None:
    """Refuse a flow whose density of given data is solved for number by number.

    Raises:
        InputError: saying why.
    """
    if _is_solved(flow.bijector, inverse=False):
        raise InputError(
            f"{name} is an inverse autoregressive flow: its density of a student's draws would be solved for number by "
            "number, while a teacher (MAF, WaveNet) gives it in one pass"
        )


def require_one_device(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse a teacher that is not where the student is; :func:`load_teacher` can put it there.

    Raises:
        InputError: naming both devices.
    """
    where = [next((weight.device for weight in model.parameters()), None) for model in (student, teacher)]
    if None not in where and where[0] != where[1]:
        raise InputError(
            f"teacher and student must be on the same device, but the teacher is on {where[1]}, "
            f"the student on {where[0]}"
        )


def require_match(student: nn.Module, teacher: Density, context: Context = None) -> None:
    """Refuse a teacher of other events, of another context, or on another device, than the student's.

    Raises:
        InputError: naming what both expect.
    """
    if not isinstance(teacher, nn.Module):
        return
    require_one_device(student, teacher)
    flows = {"student": flow_of(student), "teacher": flow_of(teacher)}
    sizes = {role: getattr(getattr(flow, "config", None), "context", None) for role, flow in flows.items()}
    if None not in sizes.values() and len(set(sizes.values())) > 1:
        raise InputError(
            "teacher and student must be given the same context, but the teacher expects one of "
            f"{sizes['teacher']} numbers, the student of {sizes['student']}"
        )
    shapes = {}
    for role, flow in flows.items():
        if context is None and flow.bijector.needs_context:
            raise InputError(f"the {role} expects a context, got None")
        try:
            shapes[role] = tuple(flow.event_shape(context))
        except ValueError as error:
            raise InputError(f"the {role}: {error}") from None
    student_shape, teacher_shape = shapes["student"], shapes["teacher"]
    same_rank = len(student_shape) == len(teacher_shape)
    if not same_rank or any(None not in (a, b) and a != b for a, b in zip(student_shape, teacher_shape, strict=True)):
        raise InputError(
            "teacher and student must be of events of the same shape, but the teacher's are "
            f"{_shown(teacher_shape)}, the student's {_shown(student_shape)}"
        )


def _is_solved(module: nn.Module, inverse: bool) -> bool:
    """Whether running a bijector in this direction solves an autoregressive map."""
    if isinstance(module, Inverse):
        return _is_solved(module.bijector, not inverse)
    if isinstance(module, Autoregressive):
        return inverse
    return any(_is_solved(part, inverse) for part in module.children() if _holds_bijectors(part))


def _holds_bijectors(module: nn.Module) -> bool:
    return any(isinstance(part, Bijector) for part in module.modules())


def _shown(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"

"""A first lesson for students: what the teacher makes of a draw of noise, in the end and on the way."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.bijectors import Autoregressive, Bijector, Chain, Inverse, ZScore
from waveflow.bijectors.base import sum_event
from waveflow.context import Context, Ragged
from waveflow.distillation.per_step import gaussian_kl
from waveflow.distillation.teacher import flow_of, frozen, require_match
from waveflow.distributions import Flow
from waveflow.errors import InputError

_QUADRATIC = 0.1  # standard deviations up to which an error counts as its square, beyond as itself


def pairs_loss(student: nn.Module, teacher: nn.Module, z: Tensor, context: Context = None) -> Tensor:
    r"""How far a student is from making of the same noise what its teacher makes of it.

    Regression on pairs of noise and draw, as where a diffusion model is taught to draw in one step (Luhman & Luhman,
    2021; arXiv:2101.02388). It needs no density, sees all modes of the teacher from the start, and so leads a student
    to where reverse KL has a gradient to use.

    A MAF's layer, solved for its draw, scales and shifts each number by what follows from the numbers *drawn* before
    it, which follow from the noise before it: it *is* a layer of an IAF, if of a network that a student has yet to
    find. Where both flows are made of such layers in the same order (:func:`corresponds`), every layer of the
    student is therefore given what the teacher's layer is given, h (B, \*event), and asked for its scales and shifts:

    .. math::
        \sum_{\text{layers}} \sum_i \log\left(1 + \mathrm{KL}\left(\mathcal{N}(m^S_i(h_{<i}), s^S_i(h_{<i})) \,\|\,
        \mathcal{N}(m^T_i, s^T_i)\right)\right)

    which vanishes for the teacher's own map alone. (The step from the whole map to its layers is ours, as is the
    logarithm, without which a few draws far out, where teachers run wild, rule every step.) Other students are asked
    for the draws alone, by an error that is quadratic up to a tenth, then linear, of the teacher's own units, if it
    begins with such (:class:`~waveflow.bijectors.ZScore`).

    Args:
        student: a flow that samples in one pass, or a model that has one, of vectors, images or any other events.
        teacher: a flow of the same events, or a model that has one; solved for its draws, and given no gradients.
        z: noise, (B, \*latent), as many numbers as an event has.
        context: None, or (B, ...), which both are given.

    Returns:
        A scalar, in nats an event (by draws: in units of the error), the mean over the noise.

    Raises:
        InputError: for noise of another shape, a context that is missing, superfluous, padded or of another batch size,
            or a student of other events than the teacher's or on another device.

    Example:
        >>> from waveflow.models import IAF, MAF
        >>> student, teacher = (M(features=2, layers=1, hidden=(8,)) for M in (IAF, MAF))
        >>> pairs_loss(student, teacher, torch.randn(100, 2)).item()  # both are still the identity
        0.0
    """
    require_match(student, teacher, context)
    student, teacher = flow_of(student), flow_of(teacher)
    _check_noise(teacher, z, context)
    for role, flow in {"teacher": teacher, "student": student}.items():
        _check_context(role, flow, context)
    if not corresponds(student, teacher, context):
        return _draws_loss(student, teacher, z, context)
    found, h = z.new_zeros(len(z)), z
    for ours, theirs in zip(_layers(student)[::-1], _layers(teacher)[::-1], strict=True):
        if not isinstance(theirs, Autoregressive):
            h = theirs.inverse(h, context)[0]
            continue
        with frozen(theirs), torch.no_grad():
            drawn = theirs.inverse(h, context)[0]
            mean, log_std = theirs.univariate.inverse(torch.zeros_like(h), theirs.conditioner(drawn, context))
        layer = ours.bijector
        shift, log_scale = layer.univariate(torch.zeros_like(h), layer.conditioner(h, context))
        found = found + sum_event(gaussian_kl(shift, log_scale, mean, log_std).log1p())
        h = drawn
    return found.mean()


def corresponds(student: nn.Module, teacher: nn.Module, context: Context = None) -> bool:
    """Whether a student is its teacher turned round layer by layer, so that it can be taught layer by layer.

    Both are chains of as many parts, the teacher's an :class:`~waveflow.bijectors.Autoregressive` with scales and
    shifts where the student has the ``Inverse`` of one, over the same order of numbers, and equal maps without
    parameters elsewhere (:class:`~waveflow.bijectors.ZScore`, ``Logit``, ``Flip``).

    Args:
        student: a flow, or a model that has one.
        teacher: likewise.
        context: where the shape of the events follows from it.

    Example:
        >>> from waveflow.models import IAF, MAF
        >>> teacher = MAF(features=2, layers=3, hidden=(8,))
        >>> [corresponds(IAF(features=2, layers=n, hidden=(8,)), teacher) for n in (2, 3)]
        [False, True]
    """
    student, teacher = flow_of(student), flow_of(teacher)
    ours, theirs, event = _layers(student), _layers(teacher), teacher.event_shape(context)
    if len(ours) != len(theirs) or student.event_shape(context) != event:
        return False
    for a, b in zip(ours, theirs, strict=True):
        if not _is_turned_round(a, b, event):
            return False
        event = b.output_shape(event)
    return True


def _check_noise(teacher: Flow, z: Tensor, context: Context) -> None:
    size = teacher.latent_shape(context)
    if z.ndim != 1 + len(size) or z.shape[1:] != size:
        expected = ", ".join(["B", *map(str, size)])
        raise InputError(f"pairs_loss expects noise ({expected}), got {tuple(z.shape)}")
    if isinstance(context, Ragged):
        raise InputError("pairs_loss expects contexts of one length, got a padded batch")
    if context is not None and len(context) != len(z):
        raise InputError(f"pairs_loss expects a context for each of {len(z)} draws of noise, got {len(context)}")


def _check_context(role: str, flow: Flow, context: Tensor | None) -> None:
    for part in flow.modules():
        size = getattr(part.conditioner, "context", None) if isinstance(part, Autoregressive) else None
        if context is None or size is None:
            continue
        if not size:
            raise InputError(f"the {role} expects no context, got {tuple(context.shape)}")
        if context.shape[1] != size:
            expected = (len(context), size, *context.shape[2:])
            raise InputError(f"the {role} expects a context {expected}, got {tuple(context.shape)}")


def _layers(flow: Flow) -> list[Bijector]:
    return list(flow.bijector) if isinstance(flow.bijector, Chain) else [flow.bijector]


def _is_turned_round(ours: Bijector, theirs: Bijector, event: tuple[int, ...]) -> bool:
    if not isinstance(theirs, Autoregressive):
        return _is_same(ours, theirs)
    inner = ours.bijector if isinstance(ours, Inverse) else None
    if not isinstance(inner, Autoregressive) or not (inner.univariate.linear and theirs.univariate.linear):
        return False
    orders = [getattr(part.conditioner, "positions", None) for part in (inner, theirs)]
    return None not in orders and torch.equal(*(order(event) for order in orders))


def _is_same(ours: Bijector, theirs: Bijector) -> bool:
    if any(True for part in (ours, theirs) for _ in part.parameters()):
        return False
    if _settings(ours) != _settings(theirs):
        return False
    buffers = [dict(part.named_buffers()) for part in (ours, theirs)]
    return all(torch.equal(value, buffers[1][name]) for name, value in buffers[0].items())


def _settings(part: Bijector) -> list[tuple[type, dict[str, object]]]:
    plain, found = (bool, int, float, str, tuple), []  # such as the margin of a logit, which is no buffer
    for module in part.modules():
        own = {name: value for name, value in vars(module).items() if isinstance(value, plain) and name != "training"}
        found.append((type(module), own))
    return found


def _draws_loss(student: Flow, teacher: Flow, z: Tensor, context: Context) -> Tensor:
    with frozen(teacher), torch.no_grad():
        theirs = teacher.bijector.inverse(z, context)[0]
    ours, first = student.bijector.inverse(z, context)[0], _layers(teacher)[0]
    if isinstance(first, ZScore):
        ours, theirs = first(ours)[0], first(theirs)[0]
    return sum_event(F.smooth_l1_loss(ours, theirs, beta=_QUADRATIC, reduction="none")).mean()

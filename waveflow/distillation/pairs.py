"""A first lesson for students: what the teacher makes of a draw of noise, in the end and on the way."""

import torch
import torch.nn.functional as F
from torch import Tensor

from waveflow.bijectors import Autoregressive, Bijector, Chain, Inverse, ZScore
from waveflow.distillation.per_step import gaussian_kl
from waveflow.distillation.teacher import frozen
from waveflow.distributions import Flow
from waveflow.errors import InputError

_QUADRATIC = 0.1  # standard deviations up to which an error counts as its square, beyond as itself


def pairs_loss(student: Flow, teacher: Flow, z: Tensor) -> Tensor:
    r"""How far a student is from making of the same noise what its teacher makes of it.

    Regression on pairs of noise and draw, as where a diffusion model is taught to draw in one step (Luhman & Luhman,
    2021; arXiv:2101.02388). It needs no density, sees all modes of the teacher from the start, and so leads a student
    to where reverse KL has a gradient to use.

    A MAF's layer, solved for its draw, scales and shifts each number by what follows from the numbers *drawn* before
    it, which follow from the noise before it: it *is* a layer of an IAF, if of a network that a student has yet to
    find. Where both flows are made of such layers in the same order (:func:`corresponds`), every layer of the
    student is therefore given what the teacher's layer is given, h (B, D), and asked for its scales and shifts:

    .. math::
        \sum_{\text{layers}} \sum_i \log\left(1 + \mathrm{KL}\left(\mathcal{N}(m^S_i(h_{<i}), s^S_i(h_{<i})) \,\|\,
        \mathcal{N}(m^T_i, s^T_i)\right)\right)

    which vanishes for the teacher's own map alone. (The step from the whole map to its layers is ours, as is the
    logarithm, without which a few draws far out, where teachers run wild, rule every step.) Other students are asked
    for the draws alone, by an error that is quadratic up to a tenth, then linear, of the teacher's own units, if it
    begins with such (:class:`~waveflow.bijectors.ZScore`).

    Args:
        student: a flow of vectors that samples in one pass, in the teacher's units.
        teacher: a flow of vectors of as many numbers; solved for its draws, and given no gradients.
        z: noise, (B, D).

    Returns:
        A scalar, the mean over the noise.

    Raises:
        InputError: for noise that is not (B, D).

    Example:
        >>> from waveflow.models import IAF, MAF
        >>> student, teacher = (M(features=2, layers=1, hidden=(8,)) for M in (IAF, MAF))
        >>> pairs_loss(student, teacher, torch.randn(100, 2)).item()  # both are still the identity
        0.0
    """
    size = teacher.event_shape()
    if z.ndim != 2 or z.shape[1:] != size:
        raise InputError(f"pairs_loss expects noise (B, {size[0]}), got {tuple(z.shape)}")
    if not corresponds(student, teacher):
        return _draws_loss(student, teacher, z)
    found, h = z.new_zeros(len(z)), z
    for ours, theirs in zip(_layers(student)[::-1], _layers(teacher)[::-1], strict=True):
        if not isinstance(theirs, Autoregressive):
            h = theirs.inverse(h)[0]
            continue
        with frozen(theirs), torch.no_grad():
            drawn = theirs.inverse(h)[0]
            mean, log_std = theirs.univariate.inverse(torch.zeros_like(h), theirs.conditioner(drawn, None))
        layer = ours.bijector
        shift, log_scale = layer.univariate(torch.zeros_like(h), layer.conditioner(h, None))
        found = found + gaussian_kl(shift, log_scale, mean, log_std).log1p().sum(1)
        h = drawn
    return found.mean()


def corresponds(student: Flow, teacher: Flow) -> bool:
    """Whether a student is its teacher turned round layer by layer, so that it can be taught layer by layer.

    Both are chains of as many parts, the teacher's an :class:`~waveflow.bijectors.Autoregressive` with scales and
    shifts where the student has the ``Inverse`` of one, over the same order of numbers, and equal maps without
    parameters elsewhere (:class:`~waveflow.bijectors.ZScore`).

    Example:
        >>> from waveflow.models import IAF, MAF
        >>> teacher = MAF(features=2, layers=3, hidden=(8,))
        >>> [corresponds(IAF(features=2, layers=n, hidden=(8,)), teacher) for n in (2, 3)]
        [False, True]
    """
    ours, theirs = _layers(student), _layers(teacher)
    event = teacher.event_shape()
    return len(ours) == len(theirs) and all(_is_turned_round(a, b, event) for a, b in zip(ours, theirs, strict=True))


def _layers(flow: Flow) -> list[Bijector]:
    return list(flow.bijector) if isinstance(flow.bijector, Chain) else [flow.bijector]


def _is_turned_round(ours: Bijector, theirs: Bijector, event: tuple[int, ...]) -> bool:
    if not isinstance(theirs, Autoregressive):
        buffers = [dict(part.named_buffers()) for part in (ours, theirs)]
        same = type(ours) is type(theirs) and not any(True for part in (ours, theirs) for _ in part.parameters())
        return same and all(torch.equal(value, buffers[1][name]) for name, value in buffers[0].items())
    inner = ours.bijector if isinstance(ours, Inverse) else None
    if not isinstance(inner, Autoregressive) or not (inner.univariate.linear and theirs.univariate.linear):
        return False
    orders = [getattr(part.conditioner, "positions", None) for part in (inner, theirs)]
    return None not in orders and torch.equal(*(order(event) for order in orders))


def _draws_loss(student: Flow, teacher: Flow, z: Tensor) -> Tensor:
    with frozen(teacher), torch.no_grad():
        theirs = teacher.bijector.inverse(z)[0]
    ours, first = student.bijector.inverse(z)[0], _layers(teacher)[0]
    if isinstance(first, ZScore):
        ours, theirs = first(ours)[0], first(theirs)[0]
    return F.smooth_l1_loss(ours, theirs, beta=_QUADRATIC, reduction="none").sum(1).mean()

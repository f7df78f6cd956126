"""The lesson by pairs of noise and draw."""

import pytest
import torch

from waveflow.bijectors import Autoregressive, Chain, Inverse, RationalQuadraticSpline
from waveflow.distillation import Student, corresponds, estimate_kl, pairs_loss
from waveflow.distributions import Flow, StandardNormal
from waveflow.errors import InputError
from waveflow.models import IAF, MAF, SplineIAF
from waveflow.networks import MADE


def shaken(model, size: float = 0.3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator).to(parameter))
    return model


def linear_maf(features: int = 3) -> MAF:
    """A MAF of one layer whose scales are constants and whose means are linear: a Gaussian."""
    teacher = MAF(features=features, layers=1, hidden=(8,), activation="relu")
    made = teacher.bijector[1].conditioner
    with torch.no_grad():
        made.layers[0].weight.normal_(0, 0.5)
        made.layers[0].bias.fill_(50.0)  # every ReLU is open
        made.last.weight[:features].normal_(0, 0.5)
        made.last.bias[features:] = torch.linspace(-0.5, 0.5, features)
        zero = torch.zeros(1, features)
        for place in range(features):  # means of zero at zero
            made.last.bias[place] -= made(zero)[0, 0, place]
    return teacher


def test_layers_are_compared_by_the_kl_of_their_gaussians():
    teacher, student = (
        shaken(MAF(features=3, layers=2, hidden=(8,))),
        shaken(IAF(features=3, layers=2, hidden=(8,)), seed=1),
    )
    z = torch.randn(5, 3)
    expected = torch.zeros(5)
    h = z
    for place in (2, 1):
        layer, ours = teacher.bijector[place], student.bijector[place]
        drawn = layer.inverse(h)[0]
        for i in range(3):  # what each layer makes of a number, by what it makes of the noise 0 and 1 there
            ends = {}
            for who, part in (("teacher", layer), ("student", ours)):
                at = [h.clone(), h.clone()]
                at[0][:, i], at[1][:, i] = 0.0, 1.0
                low, high = (part.inverse(noise)[0][:, i].detach() for noise in at)
                ends[who] = torch.distributions.Normal(low, high - low)
            expected += torch.distributions.kl_divergence(ends["student"], ends["teacher"]).log1p()
        h = drawn
    torch.testing.assert_close(pairs_loss(student, teacher, z), expected.mean(), rtol=1e-4, atol=1e-5)


def test_the_loss_vanishes_for_the_teachers_own_map_alone():
    """Over numbers that do not depend on each other, a MAF's layer is an IAF's with scale and mean as they are."""
    teacher, student = MAF(features=3, layers=1, hidden=(8,)), IAF(features=3, layers=1, hidden=(8,))
    bias = torch.tensor([0.5, -1.0, 2.0, 0.3, -0.4, 0.1])
    with torch.no_grad():
        teacher.bijector[1].conditioner.last.bias.copy_(bias)
        student.bijector[1].bijector.conditioner.last.bias.copy_(bias)
    z = torch.randn(50, 3)
    assert pairs_loss(student, teacher, z).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        student.bijector[1].bijector.conditioner.last.bias[4] += 0.2
    assert pairs_loss(student, teacher, z).item() > 0.01


@pytest.mark.parametrize(
    ("student", "limit"),
    [
        (lambda: IAF(features=3, layers=1, hidden=(32,), activation="silu"), 1e-3),
        (lambda: SplineIAF(features=3, layers=1, hidden=(32,), bins=4), 0.02),
    ],
    ids=["by layers", "by draws"],
)
def test_a_student_taught_by_pairs_alone_matches_a_linear_teacher(student, limit):
    torch.manual_seed(0)
    teacher, student = linear_maf(), student()
    before = estimate_kl(student, teacher, draws=2000).per_dim
    optimizer = torch.optim.Adam(student.parameters(), 0.01)
    steps = 300
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / steps)
        optimizer.zero_grad()
        pairs_loss(student, teacher, torch.randn(256, 3)).backward()
        optimizer.step()
    found = estimate_kl(student, teacher, draws=5000)
    assert before > 0.1
    assert found.per_dim < limit + 3 * found.per_dim_error


@pytest.mark.parametrize(
    ("student", "expected"),
    [
        (lambda: IAF(features=3, layers=2, hidden=(4,)), True),
        (lambda: IAF(features=3, layers=3, hidden=(4,)), False),
        (lambda: SplineIAF(features=3, layers=2, hidden=(4,), bins=4), False),
        (lambda: MAF(features=3, layers=2, hidden=(4,)), False),
    ],
)
def test_which_students_are_their_teacher_turned_round(student, expected):
    assert corresponds(student(), MAF(features=3, layers=2, hidden=(4,))) is expected


def test_other_units_another_order_or_splines_do_not_correspond():
    teacher, student = MAF(features=3, layers=1, hidden=(4,)), IAF(features=3, layers=1, hidden=(4,))
    student.bijector[1].bijector.conditioner.order.copy_(torch.tensor([2, 1, 0]))
    assert not corresponds(student, teacher)
    student = IAF(features=3, layers=1, hidden=(4,))
    student.standardise(torch.randn(10, 3))
    assert not corresponds(student, teacher)
    teacher.bijector[0].load_state_dict(student.bijector[0].state_dict())
    assert corresponds(student, teacher)
    splines = RationalQuadraticSpline(4)
    bent = Inverse(Autoregressive(MADE(3, (4,), splines.params), splines))
    assert not corresponds(Flow(StandardNormal(), Chain([teacher.bijector[0], bent]), (3,)), teacher)


def test_draws_are_compared_in_the_teachers_units():
    """In units a thousand times as large the loss by draws is the same."""
    teacher = shaken(MAF(features=2, layers=2, hidden=(8,)))
    student = shaken(SplineIAF(features=2, layers=1, hidden=(8,), bins=4), 0.1)
    z = torch.randn(100, 2)
    plain = pairs_loss(student, teacher, z)
    for model in (teacher, student):
        model.bijector[0].std.mul_(1000)
    torch.testing.assert_close(pairs_loss(student, teacher, z), plain, rtol=1e-3, atol=1e-4)


def test_only_the_student_takes_gradients_and_a_student_as_the_trainer_wraps_it_is_taught_alike():
    teacher, student = shaken(MAF(features=2, layers=2, hidden=(8,))), Student(IAF(features=2, layers=2, hidden=(8,)))
    z = torch.randn(20, 2)
    loss = student(lesson=lambda flow: pairs_loss(flow, teacher, z))
    assert loss.item() == pairs_loss(student.model, teacher, z).item() > 0
    loss.backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("shape", [(5,), (5, 2), (2, 5, 3)])
def test_noise_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"pairs_loss expects noise \(B, 3\), got"):
        pairs_loss(IAF(features=3, layers=1, hidden=(4,)), MAF(features=3, layers=1, hidden=(4,)), torch.randn(shape))

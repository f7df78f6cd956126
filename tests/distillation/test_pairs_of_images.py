"""The lesson by pairs of noise and draw, of images."""

import pytest
import torch

from waveflow.bijectors import Autoregressive, Chain, Logit
from waveflow.distillation import Student, corresponds, estimate_kl, pairs_loss
from waveflow.distributions import Flow, StandardNormal
from waveflow.errors import InputError
from waveflow.models import MaskedConvFlow, MaskedConvIAF

SIZES = {"channels": 2, "height": 2, "width": 3, "values": 17, "hidden": 8, "layers": 2, "first_kernel": 3}


def shaken(model, size: float = 0.5, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model


def one_hot(classes: int, count: int) -> torch.Tensor:
    return torch.eye(classes)[torch.arange(count) % classes]


def networks(model) -> list[torch.nn.Module]:
    """The network of each map, from data to latent."""
    return [part.conditioner for part in model.flow.bijector.modules() if isinstance(part, Autoregressive)]


@pytest.fixture
def equal_pair():
    """A teacher that shifts pixels by what follows from their class alone, and its student, which is the same map."""
    teacher = shaken(MaskedConvFlow(**SIZES, classes=3))
    student = MaskedConvIAF(**SIZES, classes=3)
    for theirs, ours in zip(networks(teacher), networks(student), strict=True):
        with torch.no_grad():
            for layer in theirs.layers:
                layer.vertical.weight.zero_()
                layer.horizontal.weight.zero_()
            for part in (theirs.last.weight, theirs.last.bias):
                part[2:].zero_()  # scales of one
        ours.load_state_dict(theirs.state_dict())
    return teacher, student


def test_the_loss_vanishes_for_the_teachers_own_map_and_grows_away_from_it(equal_pair):
    teacher, student = equal_pair
    z, context = torch.randn(6, 2, 2, 3), one_hot(3, 6)
    torch.testing.assert_close(
        student.flow.bijector.inverse(z, context)[0], teacher.flow.bijector.inverse(z, context)[0]
    )
    assert teacher.flow.sample((), one_hot(3, 3)).std(0).max() > 0.01
    assert pairs_loss(student, teacher, z, context).item() == pytest.approx(0, abs=1e-7)
    for network in networks(student):
        for parameter in (network.last.bias, network.last.weight):
            kept = parameter.detach().clone()
            with torch.no_grad():
                parameter.add_(0.5)
            assert pairs_loss(student, teacher, z, context).item() > 1e-5
            with torch.no_grad():
                parameter.copy_(kept)


@pytest.mark.parametrize("classes", [0, 2])
def test_maps_are_compared_pixel_by_pixel_by_the_kl_of_their_gaussians(classes):
    teacher = shaken(MaskedConvFlow(**SIZES, classes=classes))
    student = shaken(MaskedConvIAF(**SIZES | {"hidden": 6, "layers": 1}, classes=classes), seed=1)
    z, context = torch.randn(4, 2, 2, 3), one_hot(2, 4) if classes else None
    expected, h = torch.zeros(4), z
    for place in (3, 2, 1):  # of a logit, a map, a flip and a map
        layer, ours = teacher.flow.bijector[place], student.flow.bijector[place]
        drawn = layer.inverse(h, context)[0]
        if place != 2:
            for i in range(12):  # what each map makes of a pixel, by what it makes of the noise 0 and 1 there
                ends = {}
                for who, part in (("teacher", layer), ("student", ours)):
                    at = [h.flatten(1).clone(), h.flatten(1).clone()]
                    at[0][:, i], at[1][:, i] = 0.0, 1.0
                    low, high = (part.inverse(noise.view_as(h), context)[0].flatten(1)[:, i].detach() for noise in at)
                    ends[who] = torch.distributions.Normal(low, high - low)
                expected += torch.distributions.kl_divergence(ends["student"], ends["teacher"]).log1p()
        h = drawn
    torch.testing.assert_close(pairs_loss(student, teacher, z, context), expected.mean(), rtol=1e-3, atol=1e-4)


def test_every_parameter_of_the_student_takes_a_gradient_and_none_of_the_teacher():
    teacher, student = shaken(MaskedConvFlow(**SIZES, classes=3)), shaken(MaskedConvIAF(**SIZES, classes=3), seed=1)
    wrapped, z, context = Student(student), torch.randn(20, 2, 2, 3), one_hot(3, 20)
    loss = wrapped(lesson=lambda flow: pairs_loss(flow, teacher, z, context))
    loss.backward()
    assert loss.item() == pairs_loss(student.flow, teacher.flow, z, context).item()
    for name, parameter in student.flow.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_that_is_no_mirror_is_asked_for_its_draws():
    teacher, student = shaken(MaskedConvFlow(**SIZES)), shaken(MaskedConvIAF(**SIZES, steps=3), 0.1, seed=1)
    z = torch.randn(5, 2, 2, 3)
    off = (student.flow.bijector.inverse(z)[0] - teacher.flow.bijector.inverse(z)[0]).abs()
    expected = torch.where(off < 0.1, off**2 / 0.2, off - 0.05).sum((1, 2, 3)).mean()
    torch.testing.assert_close(pairs_loss(student, teacher, z), expected)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, True), ({"hidden": 12, "layers": 3, "kernel": 5}, True), ({"steps": 1}, False), ({"height": 3}, False)],
)
def test_which_students_are_their_teacher_turned_round(fields, expected):
    assert corresponds(MaskedConvIAF(**SIZES | fields), MaskedConvFlow(**SIZES)) is expected


def test_another_logit_does_not_correspond():
    teacher, student = MaskedConvFlow(**SIZES), MaskedConvIAF(**SIZES)
    parts = list(student.flow.bijector)[1:]
    for alpha, expected in ((0.05, True), (0.01, False)):
        flow = Flow(StandardNormal(), Chain([Logit(alpha), *parts]), student.image_shape)
        assert corresponds(flow, teacher) is expected


def test_a_student_learns_by_pairs_alone():
    sizes = SIZES | {"channels": 1, "height": 3}
    torch.manual_seed(0)
    teacher, student = shaken(MaskedConvFlow(**sizes), 0.3), MaskedConvIAF(**sizes | {"hidden": 16})
    before = estimate_kl(student, teacher, draws=1000).per_dim
    optimizer = torch.optim.Adam(student.parameters(), 0.01)
    steps = 150
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / steps)
        optimizer.zero_grad()
        pairs_loss(student, teacher, torch.randn(64, 1, 3, 3)).backward()
        optimizer.step()
    assert estimate_kl(student, teacher, draws=1000).per_dim < 0.2 * before


@pytest.mark.parametrize("shape", [(5, 12), (5, 2, 3, 2), (2, 2, 3), (1, 5, 2, 2, 3)])
def test_noise_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"pairs_loss expects noise \(B, 2, 2, 3\), got"):
        pairs_loss(MaskedConvIAF(**SIZES), MaskedConvFlow(**SIZES), torch.randn(shape))


@pytest.mark.parametrize(
    ("student", "context", "message"),
    [
        ({"classes": 3}, None, "expects a context, got None"),
        ({"classes": 3}, one_hot(3, 4), "a context for each of 5 draws of noise, got 4"),
        ({"classes": 3}, one_hot(4, 5), r"the teacher expects a context \(5, 3\), got \(5, 4\)"),
        ({"classes": 4}, one_hot(3, 5), r"the student expects a context \(5, 4\), got \(5, 3\)"),
        ({"classes": 3, "height": 3}, one_hot(3, 5), "events of the same shape"),
    ],
)
def test_contexts_and_students_that_do_not_fit_are_refused(student, context, message):
    with pytest.raises(InputError, match=message):
        pairs_loss(
            MaskedConvIAF(**SIZES | student), MaskedConvFlow(**SIZES, classes=3), torch.randn(5, 2, 2, 3), context
        )


def test_a_context_that_nobody_expects_is_refused():
    with pytest.raises(InputError, match="the teacher expects no context"):
        pairs_loss(MaskedConvIAF(**SIZES), MaskedConvFlow(**SIZES), torch.randn(5, 2, 2, 3), one_hot(3, 5))

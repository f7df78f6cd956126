"""Reverse KL against closed forms: Gaussians, linear-Gaussian models, gradients."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from waveflow.bijectors import Affine, Autoregressive, Chain, Conditioned, Elementwise, Inverse, Standardise
from waveflow.context import Ragged
from waveflow.distillation import Student, draw_scored, estimate_kl, reverse_kl
from waveflow.distributions import Flow, StandardNormal
from waveflow.errors import InputError
from waveflow.models import IAF, MAF
from waveflow.networks import MADE


def perturb(module: nn.Module, scale: float = 0.3, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return module


def linear_flow(features: int, seed: int, inverse: bool) -> Flow:
    """A Gaussian of any covariance: an autoregressive map that is linear."""
    made = perturb(MADE(features, hidden=(8,), outputs=2, activation=nn.Identity()), 0.3, seed)
    with torch.no_grad():  # scales that depend on nothing, also when trained
        made.last.weight[features:] = 0
    made.last.weight.register_hook(lambda gradient: gradient * (torch.arange(2 * features) < features)[:, None])
    layer = Autoregressive(made, Affine("exp") if inverse else Standardise("exp"))
    return Flow(StandardNormal(), Chain([Inverse(layer) if inverse else layer]), (features,)).double()


def gaussian_of(flow: Flow) -> MultivariateNormal:
    """The Gaussian that a linear flow is, from its map at the origin and at the unit vectors."""
    (features,) = flow.event_shape()
    points = torch.cat([torch.zeros(1, features), torch.eye(features)]).double()
    with torch.no_grad():
        x, _ = flow.bijector.inverse(points)
    slope = (x[1:] - x[0]).T
    return MultivariateNormal(x[0], slope @ slope.T)


def test_estimates_the_divergence_of_gaussians():
    student, teacher = linear_flow(3, 1, inverse=True), linear_flow(3, 2, inverse=False)
    true = kl_divergence(gaussian_of(student), gaussian_of(teacher)).item()
    assert true > 0.1
    estimate = estimate_kl(student, teacher, draws=100_000, generator=torch.Generator().manual_seed(0))
    assert abs(estimate.mean - true) < 4 * estimate.error < 0.05
    assert estimate.per_dim == pytest.approx(estimate.mean / 3)
    assert estimate.per_dim_error == pytest.approx(estimate.error / 3)


def test_the_standard_error_is_that_of_repeated_estimates():
    student, teacher = linear_flow(2, 1, inverse=True), linear_flow(2, 2, inverse=False)
    generator = torch.Generator().manual_seed(0)
    estimates = [estimate_kl(student, teacher, draws=200, batch=64, generator=generator) for _ in range(300)]
    spread = torch.tensor([e.mean for e in estimates]).std().item()
    assert spread == pytest.approx(sum(e.error for e in estimates) / 300, rel=0.15)


def test_the_standard_error_given_contexts_leaves_out_their_own_spread():
    student = IAF(features=1, layers=1, hidden=(4,), context=1)
    context = torch.tensor([[0.0], [10.0]])

    def shifted(x, context):
        return Normal(context, 1.0).log_prob(x).sum(1)  # KL 0 and 50, spread 0 and 10

    estimate = estimate_kl(student, shifted, context, draws=4000, generator=torch.Generator().manual_seed(0))
    assert estimate.mean == pytest.approx(25, rel=0.01)
    assert estimate.error == pytest.approx(10 / math.sqrt(4000) / 2, rel=0.1)


def test_one_estimate_for_each_draw_and_context():
    student, teacher = (model(features=3, layers=2, hidden=(8,), context=2) for model in (IAF, MAF))
    assert reverse_kl(student, teacher, torch.randn(4, 2), draws=5).shape == (5, 4)
    student, teacher = (model(features=3, layers=2, hidden=(8,)) for model in (IAF, MAF))
    assert reverse_kl(student, teacher, draws=5).shape == (5,)


def test_every_draw_is_scored_under_its_own_context():
    student, teacher = (perturb(m(features=2, layers=1, hidden=(4,), context=1), 0.5) for m in (IAF, MAF))
    context = torch.tensor([[3.0], [-2.0], [0.5]])
    drawn = draw_scored(student, teacher, context, draws=2, generator=torch.Generator().manual_seed(1))
    for i in range(2):
        for j in range(3):
            one = context[j : j + 1]
            torch.testing.assert_close(drawn.log_p[i, j], teacher.log_prob(drawn.x[i, j][None], one)[0])
            torch.testing.assert_close(drawn.log_q[i, j], student.log_prob(drawn.x[i, j][None], one)[0])
    torch.testing.assert_close(drawn.log_ratio, drawn.log_q - drawn.log_p)


def test_a_divergence_from_itself_is_zero():
    maf = perturb(MAF(features=4, layers=2, hidden=(8,)), 0.2).double()
    with torch.no_grad():
        assert reverse_kl(maf, maf, draws=50).abs().max() < 1e-6


def test_gradients_pass_through_the_teacher_but_not_into_it():
    student, teacher = perturb(IAF(features=2, layers=1, hidden=(8,))), perturb(MAF(features=2, layers=1, hidden=(8,)))
    reverse_kl(student, teacher, draws=256).mean().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in teacher.parameters()) and teacher.training

    # Without the way through the teacher the student would only shrink its entropy, and learn no mean.
    whole = [p.grad.clone() for p in student.parameters()]
    student.zero_grad()
    student.sample_with_log_prob((64,))[1].mean().backward()
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(whole, (p.grad for p in student.parameters()), strict=True))


def test_the_gradient_is_that_of_the_closed_form():
    """d KL / d (mean, log std) of a student N(m, s) and a teacher N(1, 0.5): (m - 1) / 0.25 and s^2 / 0.25 - 1."""
    student = Flow(StandardNormal(), Inverse(Elementwise(Affine("exp"), (1,))), (1,))
    with torch.no_grad():
        student.bijector.bijector.raw.copy_(torch.tensor([[0.3], [math.log(0.8)]]))
    loss = reverse_kl(student, Independent(Normal(torch.ones(1), 0.5), 1).log_prob, draws=400_000).mean()
    loss.backward()
    expected = torch.tensor([[(0.3 - 1) / 0.25], [0.8**2 / 0.25 - 1]])
    torch.testing.assert_close(student.bijector.bijector.raw.grad, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("features", [1, 4])
def test_linear_gaussian_students_reach_the_analytic_optimum(features):
    torch.manual_seed(0)
    teacher, student = linear_flow(features, 5, inverse=False), linear_flow(features, 6, inverse=True)
    before = kl_divergence(gaussian_of(student), gaussian_of(teacher)).item()
    optimizer = torch.optim.Adam(student.parameters(), 0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(400):
        optimizer.zero_grad()
        reverse_kl(student, teacher, draws=256).mean().backward()
        optimizer.step()
        schedule.step()
    after = kl_divergence(gaussian_of(student), gaussian_of(teacher)).item()
    assert before > 0.05 and after < 1e-4 * features
    torch.testing.assert_close(gaussian_of(student).mean, gaussian_of(teacher).mean, atol=0.03, rtol=0)
    torch.testing.assert_close(
        gaussian_of(student).covariance_matrix, gaussian_of(teacher).covariance_matrix, atol=0.05, rtol=0.05
    )


def test_waveforms_under_an_encoded_context():
    """The shape of the audio student: (B, 1, T), parameters that follow from an encoded mel."""

    class Past(nn.Module):
        """Mean and log-std from the sample before and the context at it."""

        context = 1

        def __init__(self):
            super().__init__()
            self.mix = nn.Conv1d(2, 2, 1)

        def forward(self, x, context):
            before = nn.functional.pad(x, (1, -1))
            return self.mix(torch.cat([before, context], 1)).unsqueeze(2) * 0.3

    encoder = nn.Upsample(scale_factor=4)

    def events(context):
        return (1, 4 * context.shape[2])

    teacher = Flow(StandardNormal(), Conditioned(encoder, Autoregressive(Past(), Standardise("exp"))), events)
    stack = Chain([Inverse(Autoregressive(Past(), Affine("exp"))) for _ in range(2)])
    student = Flow(StandardNormal(), Conditioned(encoder, stack), events)
    mel = torch.randn(3, 1, 5)
    drawn = draw_scored(student, teacher, mel, draws=2)
    assert drawn.x.shape == (2, 3, 1, 20) and drawn.log_ratio.shape == (2, 3)
    drawn.log_ratio.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    assert estimate_kl(student, teacher, mel, draws=4).per_dim_error > 0


def test_a_wrapped_student_draws_the_same():
    model, teacher = perturb(IAF(features=2, layers=2, hidden=(8,))), perturb(MAF(features=2, layers=2, hidden=(8,)))
    bare = reverse_kl(model, teacher, draws=6, generator=torch.Generator().manual_seed(3))
    wrapped = reverse_kl(Student(model), teacher, draws=6, generator=torch.Generator().manual_seed(3))
    assert torch.equal(bare, wrapped)


def test_modes_are_left_as_they_were():
    student, teacher = IAF(features=2, layers=1, hidden=(8,)), MAF(features=2, layers=1, hidden=(8,))
    student.bijector[0].eval()
    estimate_kl(student, teacher, draws=8)
    assert student.training and not student.bijector[0].training and teacher.training


def iaf(**fields) -> IAF:
    return IAF(**{"features": 2, "layers": 1, "hidden": (4,), **fields})


def maf(**fields) -> MAF:
    return MAF(**{"features": 2, "layers": 1, "hidden": (4,), **fields})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reverse_kl(iaf(), maf(), draws=0), "at least 1 draw, got 0"),
        (lambda: estimate_kl(iaf(), maf(), draws=1), "at least 2 draws, got 1"),
        (lambda: reverse_kl(iaf(), maf(features=3)), r"the teacher's are \(3\), the student's \(2\)"),
        (lambda: reverse_kl(iaf(), iaf()), "solved for number by number"),
        (
            lambda: reverse_kl(iaf(context=2), maf(context=3), torch.zeros(1, 2)),
            "the teacher expects one of 3 numbers, the student of 2",
        ),
        (lambda: reverse_kl(iaf(), maf(), torch.zeros(1, 2)), r"the student: IAF expects no context, got \(1, 2\)"),
        (lambda: reverse_kl(iaf(context=2), maf(context=2)), "the student expects a context, got None"),
        (lambda: reverse_kl(iaf(), nn.Linear(2, 2)), "expects a flow, or a model that has one, got Linear"),
        (lambda: reverse_kl(iaf(), maf().to("meta")), "the teacher is on meta, the student on cpu"),
        (
            lambda: reverse_kl(iaf(), maf(), Ragged(torch.zeros(1, 2, 3), torch.ones(1, 1, 3))),
            "contexts of one length, got a padded batch",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()

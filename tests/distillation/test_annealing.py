"""The way to a teacher of several modes."""

import pytest
import torch
from torch.distributions import Independent, Normal

from waveflow.distillation import annealed, annealing_weight, reverse_kl
from waveflow.errors import InputError
from waveflow.models import MAF, SplineIAF


def normal(mean: float, std: float) -> Independent:
    return Independent(Normal(torch.full((1,), mean), torch.full((1,), std)), 1)


def two_modes(x):
    """Equal parts of N(-2, 0.3^2) and N(2, 0.3^2)."""
    return torch.logaddexp(normal(-2.0, 0.3).log_prob(x), normal(2.0, 0.3).log_prob(x)) - torch.tensor(2.0).log()


def test_is_a_geometric_mean_of_densities():
    x = torch.tensor([[0.3], [-1.0]])
    teacher, start = normal(1.0, 0.5).log_prob, normal(0.0, 1.0).log_prob
    expected = 0.25 * teacher(x) + 0.75 * start(x)
    torch.testing.assert_close(annealed(teacher, start, 0.25)(x), expected)
    torch.testing.assert_close(annealed(teacher, start, 1.0)(x), teacher(x))


def test_gives_contexts_to_both_and_gradients_to_neither():
    teacher, start = (MAF(features=2, layers=1, hidden=(4,), context=1) for _ in range(2))
    x, context = torch.randn(3, 2, requires_grad=True), torch.randn(3, 1)
    annealed(teacher, start, 0.5)(x, context).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for flow in (teacher, start) for p in flow.parameters())


@pytest.mark.parametrize(("anneal", "std", "both"), [(200, 1.5, True), (0, 1.5, False), (0, 0.3, False)])
def test_a_student_finds_both_modes_if_led_there(anneal, std, both):
    torch.manual_seed(0)
    student = SplineIAF(features=1, layers=1, hidden=(4,), activation="silu", bound=4.0)
    with torch.no_grad():  # it starts around one of them, annealed or not
        student.bijector[0].mean.fill_(2.0)
        student.bijector[0].std.fill_(std)
    start = normal(0.0, 2.0).log_prob
    # Once the modes have come apart nothing holds their shares but the noise of the gradient: many draws, small steps.
    optimizer = torch.optim.Adam(student.parameters(), 0.005)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.005 * (1 - step / 300)
        optimizer.zero_grad()
        target = annealed(two_modes, start, annealing_weight(step, anneal, first=0.01))
        reverse_kl(student, target, draws=4096).mean().backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        kl = reverse_kl(student, two_modes, draws=5000).mean().item()
        left = (student.sample((5000,)) < -1).float().mean().item()
    if both:
        assert 0.2 < left < 0.8 and kl < 0.35
    else:  # log 2 nats from the truth, and content
        assert left <= (0.001 if std > 1 else 0) and kl == pytest.approx(0.693, abs=0.1)


def test_weights_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"weight in \[0, 1\], got 1.5"):
        annealed(two_modes, two_modes, 1.5)

"""The loop over steps, and the diagnostics of what it drew."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal

from waveflow.errors import InputError
from waveflow.sampling import (
    MALA,
    Cycle,
    Gibbs,
    Independence,
    Kernel,
    RandomWalk,
    effective_sample_size,
    r_hat,
    run_chains,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def standard_normal(x):
    return -0.5 * x.square().sum(1)


class Count(Kernel):
    """x + 1 at every step."""

    def prepare(self, state):
        return state

    def step(self, state, generator=None):
        n = len(state.x)
        return state._replace(x=state.x + 1, accepted=torch.ones(n), invalid=torch.zeros(n))


def test_which_states_are_kept():
    chains = run_chains(Count(), torch.tensor([[0.0], [100.0]]), draws=3, warmup=4, thin=2)
    assert chains.samples[..., 0].tolist() == [[6, 8, 10], [106, 108, 110]]
    assert chains.pooled()[:, 0].tolist() == [6, 8, 10, 106, 108, 110]
    assert chains.state.step == 10 and chains.acceptance.tolist() == [1, 1] and chains.log_prob is None


KERNELS = {
    "walk": lambda: RandomWalk(standard_normal, 1.0),
    "mala": lambda: MALA(standard_normal, 1.0),
    "independence": lambda: Independence(standard_normal, Independent(Normal(torch.zeros(2), 1.5), 1), ahead=4),
    "cycle": lambda: Cycle([KERNELS["independence"](), KERNELS["gibbs"](), KERNELS["mala"](), KERNELS["walk"]()]),
    "gibbs": lambda: Gibbs([lambda x, g: torch.randn(len(x), generator=g)] * 2),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_run_goes_on_as_if_it_had_not_stopped(name):
    kernel, start = KERNELS[name](), torch.zeros(3, 2)
    whole = run_chains(kernel, start, 12, generator=seeded())
    generator = seeded()
    first = run_chains(kernel, start, 6, generator=generator)
    second = run_chains(kernel, first.state, 6, generator=generator)
    assert torch.equal(whole.samples, torch.cat([first.samples, second.samples], 1))
    other = run_chains(kernel, start, 12, generator=seeded(1))
    assert not torch.equal(whole.samples, other.samples)


@pytest.mark.parametrize("name", KERNELS)
def test_double_precision_and_gradients(name):
    start = torch.zeros(3, 2, requires_grad=True)
    assert not run_chains(KERNELS[name](), start, 3, generator=seeded()).samples.requires_grad
    if name in ("walk", "mala"):
        chains = run_chains(KERNELS[name](), start.double(), 3, generator=seeded())
        assert chains.samples.dtype == chains.log_prob.dtype == torch.float64


def test_a_cycle_of_different_moves_keeps_the_target():
    x = run_chains(KERNELS["cycle"](), torch.full((20_000, 2), 4.0), 1, warmup=10, generator=seeded()).pooled()
    assert x.mean(0).abs().max() < 0.03 and (x.var(0) - 1).abs().max() < 0.04


def test_a_cycle_knows_the_density_where_it_is():
    chains = run_chains(Cycle([KERNELS["gibbs"](), KERNELS["walk"]()]), torch.zeros(50, 2), 5, generator=seeded())
    torch.testing.assert_close(chains.log_prob, -0.5 * chains.samples.square().sum(-1))


def test_a_cycle_reports_the_share_accepted_over_its_moves():
    never = RandomWalk(lambda x: torch.where(x[:, 0] == 0, 0.0, -math.inf), 1.0)
    chains = run_chains(Cycle([never, never, KERNELS["gibbs"]()]), torch.zeros(5, 2), 1, generator=seeded())
    torch.testing.assert_close(chains.acceptance, torch.full((5,), 1 / 3))


def test_a_cycle_draws_ahead_as_well():
    calls = []

    def counted(x):
        calls.append(len(x))
        return standard_normal(x)

    jump = Independence(counted, Independent(Normal(torch.zeros(2), 1.5), 1), ahead=10)
    run_chains(Cycle([RandomWalk(standard_normal, 1.0), jump]), torch.zeros(5, 2), 20, generator=seeded())
    assert calls == [50, 50]


def autoregressive(rho, chains=8, draws=5000):
    """AR(1) chains N(0, 1), whose effective size is draws (1 - rho) / (1 + rho)."""
    noise = torch.randn(chains, draws, generator=seeded(), dtype=torch.float64)
    x = noise.clone()
    for t in range(1, draws):
        x[:, t] = rho * x[:, t - 1] + math.sqrt(1 - rho**2) * noise[:, t]
    return x


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_effective_sample_size_of_autoregressive_chains(rho):
    x = torch.stack([autoregressive(rho), -autoregressive(rho)], -1)
    expected = 8 * 5000 * (1 - rho) / (1 + rho)
    ess = effective_sample_size(x)
    assert ess.shape == (2,) and (ess / expected > 0.85).all() and (ess / expected < 1.15).all()
    assert r_hat(x).max() < 1.01


def test_the_tails_are_judged_by_their_own():
    """Chains that agree on their middles, while half of them never go far out."""
    x = autoregressive(0.0, chains=4, draws=1000)
    x[:2] = x[:2].clamp(-1.0, 1.0)
    assert effective_sample_size(x, "tail") < 300 < 1000 < effective_sample_size(x)


def test_r_hat_sees_chains_that_disagree():
    x = autoregressive(0.5, chains=4, draws=1000)
    x[0] += 2
    assert r_hat(x) > 1.1
    chains = run_chains(RandomWalk(standard_normal, 0.05), 3 * torch.randn(4, 2, generator=seeded()), 200)
    assert chains.r_hat().min() > 1.1 and chains.effective_sample_size().max() < 40


def test_a_coordinate_that_never_moves_has_no_diagnostics():
    x = torch.stack([autoregressive(0.0, 4, 100), torch.ones(4, 100).double()], -1)
    for diagnose in (r_hat, effective_sample_size):
        assert diagnose(x).isnan().tolist() == [False, True]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: r_hat(torch.zeros(1, 100)), r"at least 2 chains of at least 4 draws, got \(1, 100\)"),
        (lambda: effective_sample_size(torch.zeros(1, 3)), r"1 chain of at least 4 draws, got \(1, 3\)"),
        (lambda: r_hat(torch.zeros(100)), r"got \(100,\)"),
        (lambda: r_hat(torch.full((2, 9), math.nan)), "values that are finite"),
        (lambda: effective_sample_size(torch.zeros(2, 9), "middle"), "'middle'"),
        (lambda: run_chains(Count(), torch.zeros(0, 2), 3), r"starts .*got shape \(0, 2\)"),
        (lambda: run_chains(Count(), torch.tensor(0.0), 3), r"got shape \(\)"),
        (lambda: run_chains(Count(), torch.zeros(3), 0), "draws of at least 1, got 0"),
        (lambda: run_chains(Count(), torch.zeros(3), 3, warmup=-1), "warmup of at least 0, got -1"),
        (lambda: run_chains(Count(), torch.zeros(3), 3, thin=0), "thin of at least 1, got 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_progress_is_shown_on_request(capsys):
    run_chains(Count(), torch.zeros(3), 3)
    assert not capsys.readouterr().err
    run_chains(Count(), torch.zeros(3), 3, progress=True)
    assert "Count" in capsys.readouterr().err


def test_without_arviz_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "arviz_stats.base", None)
    with pytest.raises(InputError, match=r"pip install 'waveflow\[sampling\]'"):
        r_hat(torch.zeros(2, 9))

"""Metropolis-Hastings: transition matrices on small spaces, and moments of Gaussians."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Beta, Independent, MultivariateNormal, Normal

from waveflow.errors import InputError
from waveflow.sampling import Cycle, Independence, MetropolisHastings, RandomWalk, State, run_chains, tune

P = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
Q = torch.tensor(
    [[0.1, 0.6, 0.2, 0.1], [0.3, 0.3, 0.1, 0.3], [0.5, 0.2, 0.2, 0.1], [0.05, 0.05, 0.6, 0.3]], dtype=torch.float64
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def metropolis_matrix(p, q):
    """T(i -> j) of Metropolis-Hastings, entry by entry."""
    t = torch.zeros_like(q)
    for i in range(len(p)):
        for j in range(len(p)):
            if i != j:
                t[i, j] = q[i, j] * min(1.0, (p[j] * q[j, i] / (p[i] * q[i, j])).item())
        t[i, i] = 1 - t[i].sum()
    return t


def observed_matrix(kernel, states, copies=100_000):
    start = torch.arange(states).repeat_interleave(copies)
    x = kernel.step(kernel.prepare(State(start)), seeded()).x
    pairs = (start * states + x).bincount(minlength=states**2)
    return pairs.reshape(states, states).double() / copies


def discrete(proposal_matrix, symmetric=False):
    def propose(x, generator):
        return torch.multinomial(proposal_matrix[x], 1, generator=generator)[:, 0]

    def log_transition(to, start):
        return proposal_matrix[start, to].log()

    return MetropolisHastings(lambda x: P.log()[x], propose, None if symmetric else log_transition)


def test_transition_probabilities_and_detailed_balance():
    observed = observed_matrix(discrete(Q), 4)
    torch.testing.assert_close(observed, metropolis_matrix(P, Q), atol=0.006, rtol=0)
    flow = P[:, None] * observed
    torch.testing.assert_close(flow, flow.T, atol=0.003, rtol=0)
    # With the q's of the ratio exchanged, as some notes print it, p would not be kept.
    exchanged = Q * (P * Q / (P * Q.T).T).clamp(max=1)
    exchanged += torch.diag(1 - exchanged.sum(1))
    assert (P @ exchanged - P).abs().max() > 0.02 and (P @ observed - P).abs().max() < 0.003


def test_symmetric_proposals_need_no_transition_density():
    symmetric = torch.full((4, 4), 0.25, dtype=torch.float64)
    observed = observed_matrix(discrete(symmetric, symmetric=True), 4)
    torch.testing.assert_close(observed, metropolis_matrix(P, symmetric), atol=0.006, rtol=0)


def test_independence_transition_probabilities():
    q = torch.tensor([0.4, 0.1, 0.25, 0.25])
    kernel = Independence(lambda x: P.log()[x].float(), torch.distributions.Categorical(q), ahead=1)
    observed = observed_matrix(kernel, 4)
    torch.testing.assert_close(observed, metropolis_matrix(P, q.double().expand(4, 4)), atol=0.006, rtol=0)


def gaussian():
    covariance = torch.tensor([[2.0, 1.2], [1.2, 1.0]])
    return MultivariateNormal(torch.tensor([1.0, -2.0]), covariance)


def is_standard(values):
    return stats.kstest(values.numpy(), "norm").pvalue > 1e-2


def whitened(target, x):
    return torch.linalg.solve_triangular(target.scale_tril, (x - target.mean)[..., None], upper=False)[..., 0]


@pytest.mark.parametrize(
    "kernel",
    [
        lambda p: RandomWalk(p, 1.2),
        lambda p: RandomWalk(p, torch.tensor([1.4, 1.0])),
        lambda p: RandomWalk.from_samples(p, gaussian().sample((500,))),
        lambda p: Independence(p, Independent(Normal(torch.zeros(2), 4.0), 1), ahead=7),
        lambda p: Cycle([RandomWalk(p, 1.0), Independence(p, Independent(Normal(torch.zeros(2), 4.0), 1), ahead=3)]),
    ],
    ids=["walk", "walk by coordinate", "walk by covariance", "independence", "cycle"],
)
def test_chains_reach_a_gaussian(kernel):
    target = gaussian()
    chains = run_chains(kernel(target.log_prob), torch.zeros(4000, 2), draws=1, warmup=150, generator=seeded(1))
    white = whitened(target, chains.pooled())
    assert is_standard(white[:, 0]) and is_standard(white[:, 1]) and is_standard(white.sum(1) / math.sqrt(2))
    torch.testing.assert_close(chains.log_prob, target.log_prob(chains.samples))
    assert 0.05 < chains.acceptance.mean() < 0.9


def test_a_covariance_steps_along_the_target():
    samples = gaussian().sample((100_000,))
    scale = RandomWalk.from_samples(gaussian().log_prob, samples).scale
    torch.testing.assert_close(scale @ scale.T * 2 / 2.38**2, gaussian().covariance_matrix, atol=0.03, rtol=0.02)
    kernel = RandomWalk(lambda x: torch.zeros(len(x)), scale)
    moved = kernel.step(kernel.prepare(State(torch.zeros(100_000, 2))), seeded()).x
    torch.testing.assert_close(moved.T.cov(), scale @ scale.T, atol=0.1, rtol=0.02)


def test_jumps_between_other_moves_know_where_the_chain_is():
    p, q = Normal(torch.zeros(1), 1.0), Independent(Normal(torch.ones(1), 1.5), 1)
    moves = Cycle([RandomWalk(lambda x: p.log_prob(x)[:, 0], 2.0), Independence(lambda x: p.log_prob(x)[:, 0], q)])
    x = run_chains(moves, torch.zeros(20_000, 1), 1, warmup=20, generator=seeded()).pooled()
    assert is_standard(x[:, 0])


def test_a_perfect_proposal_is_always_accepted():
    target = gaussian()
    chains = run_chains(Independence(target.log_prob, target, ahead=4), torch.zeros(50, 2), 20, generator=seeded())
    assert chains.acceptance.min() > 0.99


def test_drawing_ahead_changes_the_cost_only():
    calls = []

    def counted(x):
        calls.append(len(x))
        return gaussian().log_prob(x)

    proposal = Independent(Normal(torch.zeros(2), 2.0), 1)
    run_chains(Independence(counted, proposal, ahead=10), torch.zeros(5, 2), draws=25, generator=seeded())
    assert calls == [5, 50, 50, 50]


def test_outside_the_support_is_refused_without_complaint():
    target = Beta(2.0, 5.0, validate_args=False)

    def log_prob(x):
        inside = (x > 0) & (x < 1)
        return torch.where(inside, target.log_prob(x.clamp(1e-6, 1 - 1e-6)), -math.inf)[:, 0]

    chains = run_chains(RandomWalk(log_prob, 0.4), torch.full((4000, 1), 0.5), 1, warmup=60, generator=seeded())
    assert stats.kstest(chains.pooled()[:, 0].numpy(), stats.beta(2, 5).cdf).pvalue > 1e-2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_inf_are_refused_and_counted(bad):
    def log_prob(x):
        return torch.where(x[:, 0] > 1, bad, -0.5 * x[:, 0].square())

    with pytest.warns(RuntimeWarning, match="NaN or .inf and were refused"):
        chains = run_chains(RandomWalk(log_prob, 1.0), torch.zeros(50, 1), 50, generator=seeded())
    assert chains.samples.max() <= 1 and chains.log_prob.isfinite().all()


def test_tuning_reaches_the_acceptance():
    kernel, x = tune(RandomWalk(gaussian().log_prob, 50.0), torch.zeros(200, 2), 300, generator=seeded())
    chains = run_chains(kernel, x, 200, generator=seeded())
    assert abs(chains.acceptance.mean() - 0.234) < 0.03
    kernel, x = tune(kernel, x, 300, acceptance=0.6, generator=seeded())
    assert abs(run_chains(kernel, x, 200, generator=seeded()).acceptance.mean() - 0.6) < 0.03


def flat(x):
    return torch.zeros(len(x))


@pytest.mark.parametrize(
    ("kernel", "start", "message"),
    [
        (lambda: RandomWalk(lambda x: x.sum(1).log(), 1.0), -torch.ones(3, 2), "got nan in chain 0 .3 of 3 chains"),
        (lambda: RandomWalk(lambda x: x[:, 0].log(), 1.0), torch.tensor([[1.0], [0.0]]), "got -inf in chain 1 .1 of 2"),
        (lambda: RandomWalk(lambda x: x, 1.0), torch.ones(3, 2), r"\(3,\), got \(3, 2\)"),
        (lambda: RandomWalk(flat, 0.0), torch.ones(3, 2), "scale that is positive and finite, got 0.0"),
        (lambda: RandomWalk(flat, torch.tensor([1.0, math.nan])), torch.ones(3, 2), "positive and finite"),
        (lambda: RandomWalk(flat, torch.ones(3)), torch.ones(3, 2), r"events of shape \(2,\), got \(3,\)"),
        (lambda: RandomWalk(flat, 1.0), torch.ones(3, 2).long(), "floating dtype, got torch.int64"),
        (lambda: Independence(flat, Normal(0.0, 1.0), ahead=0), torch.ones(3), "at least 1 step ahead, got 0"),
        (lambda: Independence(flat, Normal(torch.zeros(2), 1.0)), torch.ones(3, 2), "log_prob of the proposal"),
        (lambda: Independence(flat, gaussian()), torch.ones(3, 2).double(), "torch.float64, got .* torch.float32"),
        (
            lambda: MetropolisHastings(flat, lambda x, generator: x[:1]),
            torch.ones(3, 2),
            r"propose expects to give \(3, 2\) of torch.float32, got \(1, 2\)",
        ),
        (lambda: Cycle([]), torch.ones(3, 2), "at least one kernel"),
    ],
)
def test_bad_input_is_named(kernel, start, message):
    with pytest.raises(InputError, match=message):
        run_chains(kernel(), start, 5)


def test_an_acceptance_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"between 0 and 1, got 1\.5"):
        tune(RandomWalk(flat, 1.0), torch.ones(3, 2), acceptance=1.5)

"""Gibbs sampling of a Gaussian, and of a small table."""

import itertools
import math

import pytest
import torch
from scipy import stats

from waveflow.errors import InputError
from waveflow.sampling import Gibbs, State, finite_conditional, run_chains


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian_conditionals(rho):
    def conditional(other):
        def draw(x, generator):
            return rho * x[:, other] + math.sqrt(1 - rho**2) * torch.randn(len(x), generator=generator)

        return draw

    return [conditional(1), conditional(0)]


@pytest.mark.parametrize("scan", ["systematic", "random"])
def test_a_correlated_gaussian(scan):
    kernel = Gibbs(gaussian_conditionals(0.8), scan=scan)
    x = run_chains(kernel, torch.full((20_000, 2), 3.0), 1, warmup=60, generator=seeded()).pooled()
    for along in (x[:, 0], x[:, 1], (x[:, 0] + x[:, 1]) / math.sqrt(3.6), (x[:, 0] - x[:, 1]) / math.sqrt(0.4)):
        assert stats.kstest(along.numpy(), "norm").pvalue > 1e-3


def test_one_systematic_step_uses_what_it_has_just_drawn():
    kernel = Gibbs([lambda x, g: x[:, 1] + 1, lambda x, g: 10 * x[:, 0]])
    start = torch.tensor([[5.0, 2.0]])
    assert kernel.step(State(start)).x.tolist() == [[3.0, 30.0]]
    assert start.tolist() == [[5.0, 2.0]]


def test_blocks_of_coordinates():
    kernel = Gibbs([lambda x, g: x[:, [0]].repeat(1, 2), lambda x, g: x[:, 2] + 1], blocks=[slice(1, 3), 0])
    assert kernel.step(State(torch.tensor([[7.0, 0.0, 0.0]]))).x.tolist() == [[8.0, 7.0, 7.0]]


def test_a_table_is_kept_and_each_move_is_balanced():
    table = torch.rand(3, 2, generator=seeded(3), dtype=torch.float64)
    table /= table.sum()

    def log_target(x):
        return table.log()[x[:, 0], x[:, 1]]

    moves = [finite_conditional(log_target, 0, torch.arange(3)), finite_conditional(log_target, 1, torch.arange(2))]
    start = torch.tensor(list(itertools.product(range(3), range(2)))).repeat_interleave(50_000, 0)
    p = table.flatten()
    for move, axis in zip(moves, (0, 1), strict=True):
        x = Gibbs([move], blocks=[axis]).step(State(start), seeded()).x
        pairs = (2 * start[:, 0] + start[:, 1]) * 6 + 2 * x[:, 0] + x[:, 1]
        matrix = pairs.bincount(minlength=36).reshape(6, 6).double() / 50_000
        flow = p[:, None] * matrix
        torch.testing.assert_close(flow, flow.T, atol=0.003, rtol=0)
        conditional = table / table.sum(axis, keepdim=True)
        from_first = matrix[0].reshape(3, 2).sum(1 - axis)
        torch.testing.assert_close(from_first, conditional.select(1 - axis, 0), atol=0.01, rtol=0)
    x = run_chains(Gibbs(moves), start[:30_000], 1, warmup=30, generator=seeded()).pooled()
    observed = (2 * x[:, 0] + x[:, 1]).bincount(minlength=6)
    assert stats.chisquare(observed.numpy(), (30_000 * p).numpy()).pvalue > 1e-2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Gibbs([]), "block for each of 0 conditionals"),
        (lambda: Gibbs([lambda x, g: x], blocks=[0, 1]), "each of 1 conditionals, got 2"),
        (lambda: Gibbs([lambda x, g: x], scan="sideways"), "scan .*'sideways'"),
        (lambda: run_chains(Gibbs([lambda x, g: x]), torch.zeros(3, 2), 1), r"conditional 0 .* \(3,\), got \(3, 2\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()

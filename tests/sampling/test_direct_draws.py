"""Inverse distribution functions, categorical draws and Box-Muller, against scipy and exact probabilities."""

import math

import pytest
import torch
from scipy import stats

from waveflow.errors import InputError
from waveflow.sampling import box_muller, quantile_of, sample_categorical, sample_inverse_cdf, sample_normal


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_inverse_cdf_draws_have_the_distribution():
    x = sample_inverse_cdf(torch.distributions.Laplace(1.0, 2.0).icdf, (50_000,), seeded(), torch.float64)
    assert stats.kstest(x.numpy(), stats.laplace(1, 2).cdf).pvalue > 1e-2


def test_uniform_numbers_are_never_zero_nor_one():
    seen = []
    sample_inverse_cdf(lambda u: seen.append(u) or u, (2**24,), seeded())
    assert seen[0].min() > 0 and seen[0].max() < 1


def test_uniform_zero_is_lifted(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
    assert sample_inverse_cdf(torch.distributions.Normal(0.0, 1.0).icdf, (3,)).isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_quantiles_by_bisection(dtype, tolerance):
    u = torch.linspace(0.01, 0.99, 99, dtype=dtype)
    gumbel = quantile_of(lambda x: torch.exp(-torch.exp(-x)), -30.0, 30.0)
    torch.testing.assert_close(gumbel(u), -torch.log(-torch.log(u)), atol=tolerance, rtol=10 * tolerance)


def test_bisection_truncates_to_its_interval():
    half_normal = quantile_of(torch.special.ndtr, 0.0, 2.0)
    x = sample_inverse_cdf(half_normal, (20_000,), seeded(), torch.float64)
    assert stats.kstest(x.numpy(), stats.truncnorm(0, 2).cdf).pvalue > 1e-2


def test_categorical_frequencies():
    weights = torch.tensor([[0.0, 2.0, 1.0, 5.0, 0.0], [3.0, 0.0, 0.0, 1.0, 0.0]])
    drawn = sample_categorical(weights, (40_000,), seeded())
    assert drawn.shape == (40_000, 2) and drawn.dtype == torch.int64
    for row, column in zip(weights, drawn.T, strict=True):
        counts, expected = column.bincount(minlength=5), 40_000 * row / row.sum()
        assert not counts[row == 0].any()
        assert stats.chisquare(counts[row > 0].numpy(), expected[row > 0].numpy()).pvalue > 1e-2


@pytest.mark.parametrize("u", [0.0, 1 - 2.0**-53])
def test_categorical_never_draws_weight_zero_at_the_ends(monkeypatch, u):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, u, dtype=torch.float64))
    for total in torch.linspace(0.1, 7.3, 50):
        weights = torch.cat([torch.zeros(1), total.expand(3) / 3, torch.zeros(1)])
        assert 1 <= sample_categorical(weights).item() <= 3


def test_box_muller_by_hand():
    z1, z2 = box_muller(torch.tensor([0.3, 0.3, 1.0]), torch.tensor([0.25, 0.125, 0.7]))
    radius = math.sqrt(-2 * math.log(0.3))
    expected = torch.tensor([[0, radius / math.sqrt(2), 0], [radius, radius / math.sqrt(2), 0]])
    torch.testing.assert_close(torch.stack([z1, z2]), expected)


def test_normal_draws():
    z = sample_normal((3, 16_667), seeded(), torch.float64)
    assert z.shape == (3, 16_667)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-2
    pairs = z.flatten()[:50_000].unflatten(0, (2, -1))
    assert abs(torch.corrcoef(pairs)[0, 1]) < 0.02
    assert sample_normal((0, 2)).shape == (0, 2) and sample_normal((5,)).dtype == torch.float32


def test_generators_decide():
    for sample in (
        lambda g: sample_normal((7,), g),
        lambda g: sample_categorical(torch.ones(9), (7,), g),
        lambda g: sample_inverse_cdf(torch.logit, (7,), g),
    ):
        assert torch.equal(sample(seeded(3)), sample(seeded(3)))
        assert not torch.equal(sample(seeded(3)), sample(seeded(4)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_categorical(torch.tensor([1.0, -1.0])), "not negative"),
        (lambda: sample_categorical(torch.tensor([1.0, math.nan])), "finite weights"),
        (lambda: sample_categorical(torch.tensor(1.0)), r"weights \(\*batch, K\)"),
        (lambda: sample_categorical(torch.zeros(2, 3)), "at least one positive weight"),
        (lambda: sample_categorical(torch.zeros(2, 0)), "at least one positive weight"),
        (lambda: quantile_of(torch.sigmoid, 1.0, 1.0), "low < high, got 1.0 and 1.0"),
        (lambda: quantile_of(torch.sigmoid, -math.inf, 1.0), "finite bounds"),
        (lambda: quantile_of(torch.zeros_like, 0.0, 1.0)(torch.rand(3)), "cdf that grows from 0.0 to 1.0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()

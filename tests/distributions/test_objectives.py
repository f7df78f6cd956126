"""Objectives against closed forms, and in the trainer."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from waveflow.data import Batches
from waveflow.distributions import maximum_likelihood, reverse_kl
from waveflow.errors import InputError
from waveflow.models import CouplingFlow, PlanarFlow
from waveflow.training import Trainer, TrainerConfig


def gaussian(mean, std) -> Independent:
    return Independent(Normal(torch.tensor(mean), torch.tensor(std)), 1)


def test_maximum_likelihood_is_minus_the_mean_log_density():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    figures = maximum_likelihood(PlanarFlow(features=2), {"x": x})
    expected = math.log(2 * math.pi) + 25 / 4  # a new flow is standard normal
    assert figures["loss"].item() == pytest.approx(expected, abs=1e-5)
    assert figures["nats"].item() == pytest.approx(-expected, abs=1e-5) and not figures["nats"].requires_grad


def test_reverse_kl_is_the_divergence_from_a_normalised_target():
    target = gaussian([1.0, -0.5], [2.0, 0.7])
    loss = reverse_kl(target.log_prob, draws=200_000)(PlanarFlow(features=2), {})["loss"]
    divergence = kl_divergence(gaussian([0.0, 0.0], [1.0, 1.0]), target)
    assert loss.item() == pytest.approx(divergence.item(), abs=0.02)


def test_reverse_kl_pairs_every_draw_with_its_context():
    context = torch.tensor([[3.0], [-5.0], [0.0]])
    model = CouplingFlow(features=2, layers=2, hidden=(4,), context=1)

    def log_prob(x, context):
        return Normal(context, 1.0).log_prob(x).sum(1)

    loss = reverse_kl(log_prob, draws=50_000)(model, {"context": context})["loss"]
    assert loss.item() == pytest.approx((9 + 25 + 0) / 3, rel=0.02)  # KL between normals: |m|^2 / 2 over two features

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape))
    to_itself = reverse_kl(model.log_prob, draws=10)(model, {"context": context})["loss"]
    assert to_itself.item() == pytest.approx(0, abs=1e-4)


def test_trainer_fits_to_examples_and_to_densities(tmp_path):
    target = gaussian([1.0, -0.5], [0.5, 0.5])
    rows = [{"x": row} for row in target.sample((512,))]
    for name, objective in (("examples", maximum_likelihood), ("density", reverse_kl(target.log_prob, 128))):
        config = TrainerConfig(
            out=tmp_path / name, steps=150, learning_rate=0.05, save_every=0, device="cpu", ema_decay=0.0
        )
        trainer = Trainer(config)
        model = CouplingFlow(features=2, layers=1, hidden=(8,))
        trainer.fit(model, objective, Batches(rows, batch_size=128))
        trained = CouplingFlow.from_pretrained(tmp_path / name)
        with torch.no_grad():
            loss = reverse_kl(target.log_prob, draws=20_000)(trained, {})["loss"]
        assert abs(loss.item()) < 0.05, name  # from 5.6 at the start


def test_no_draws_are_refused():
    with pytest.raises(InputError, match="at least 1 draw, got 0"):
        reverse_kl(torch.sum, draws=0)

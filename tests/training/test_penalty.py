"""A penalty beside an objective."""

import torch
from torch import nn

from waveflow.training.penalty import with_penalty


def objective(model, batch):
    loss = model(batch["x"]).mean()
    return {"loss": loss, "figure": loss.detach()}


def test_adds_its_gradient_to_the_chosen_parameters_alone():
    model, batch = nn.Linear(3, 1), {"x": torch.randn(4, 3)}
    plain = torch.autograd.grad(objective(model, batch)["loss"], list(model.parameters()))
    figures = with_penalty(objective, [model.weight], 0.25)(model, batch)
    weight, bias = torch.autograd.grad(figures["loss"], list(model.parameters()))
    torch.testing.assert_close(weight, plain[0] + 0.5 * model.weight.detach())
    torch.testing.assert_close(bias, plain[1])
    assert figures["figure"] == objective(model, batch)["loss"]
    torch.testing.assert_close(figures["penalty"], model.weight.detach().square().sum())


def test_takes_a_generator_and_may_be_nothing():
    model = nn.Linear(3, 1)
    penalised, batch = with_penalty(objective, model.parameters(), 1.0), {"x": torch.ones(1, 3)}
    assert penalised(model, batch)["loss"] == penalised(model, batch)["loss"] > objective(model, batch)["loss"]
    assert with_penalty(objective, [], 1.0) is objective and with_penalty(objective, model.parameters(), 0) is objective

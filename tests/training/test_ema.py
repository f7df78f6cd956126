import copy

import pytest
import torch
from torch import nn

from waveflow.training import EMA


def scalar(value, dtype=torch.float32):
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor(value, dtype=dtype))
    return model


def test_constant_weights_are_their_own_average():
    model = scalar(3.0)
    ema = EMA(model, 0.999)
    for _ in range(50):
        ema.update()
    with ema.applied():
        assert model.weight.item() == pytest.approx(3.0)


def test_a_start_is_forgotten_as_the_product_of_warmed_up_decays():
    """Weights 1, then 0 for ever: what is left of the 1 is the product of (1 + n) / (10 + n), capped at the decay."""
    model = scalar(1.0, torch.float64)
    ema = EMA(model, 0.6)
    model.weight.data.zero_()
    left = 1.0
    for n in range(30):
        ema.update()
        left *= min(0.6, (1 + n) / (10 + n))
        with ema.applied():
            assert model.weight.item() == pytest.approx(left, rel=1e-12)
    assert (1 + 12) / (10 + 12) < 0.6 < (1 + 13) / (10 + 13)


def test_own_weights_come_back_even_after_an_error():
    model = nn.Linear(3, 2)
    ema = EMA(model, 0.9)
    model.weight.data += 1
    own = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyError), ema.applied():
        assert not torch.equal(model.weight, own["weight"])
        raise KeyError
    assert torch.equal(model.weight, own["weight"])


def test_average_of_narrow_weights_is_kept_in_float32():
    """A bfloat16 average would never move: 1 + 2e-3 rounds back to 1."""
    model = scalar(1.0, torch.bfloat16)
    ema = EMA(model, 0.999)
    ema.updates = 100_000
    model.weight.data.fill_(2.0)
    for _ in range(2):
        ema.update()
    assert ema.state_dict()["average"]["weight"].item() == pytest.approx(2 - 0.999**2, rel=1e-6)


def test_state_comes_back():
    model = nn.Linear(3, 2)
    first = EMA(model, 0.9)
    model.weight.data += 1
    first.update()
    second = EMA(model, 0.9)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for ema in (first, second):
        ema.update()
    assert second.updates == 2
    assert torch.equal(first.state_dict()["average"]["weight"], second.state_dict()["average"]["weight"])

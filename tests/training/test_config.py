import dataclasses

import pytest
from jsonargparse import ArgumentParser

from waveflow.errors import InputError
from waveflow.training import TrainerConfig

REFUSED = {
    "steps": 0,
    "batch_size": 0,
    "learning_rate": -1.0,
    "clip_norm": 0.0,
    "ema_decay": 1.0,
    "device": "tpu",
    "precision": "16-mixed",
    "seed": -1,
    "log_every": 0,
    "save_every": -1,
    "betas": (0.9, 1.0),
}


def test_seeds_are_what_pytorch_takes():
    TrainerConfig(out="run", seed=2**63 - 1)
    with pytest.raises(InputError, match=r"^seed must be 0 ... 2\^63 - 1, got 9223372036854775808$"):
        TrainerConfig(out="run", seed=2**63)


@pytest.mark.parametrize("name", REFUSED)
def test_value_out_of_range_is_refused_by_name(name):
    with pytest.raises(InputError, match=rf"^{name} must be .*, got ") as error:
        TrainerConfig(out="run", **{name: REFUSED[name]})
    assert "\n" not in str(error.value)


def test_jsonargparse_exposes_every_field_with_its_help():
    parser = ArgumentParser()
    parser.add_class_arguments(TrainerConfig)
    arguments = ["--out", "run", "--steps", "7", "--halve_at", "[3,5]", "--clip_norm", "null", "--device", "cpu"]
    config = TrainerConfig(**parser.parse_args(arguments).as_dict())
    assert config == TrainerConfig(out="run", steps=7, halve_at=(3, 5), device="cpu")
    for field in dataclasses.fields(TrainerConfig):
        (action,) = [action for action in parser._actions if action.dest == field.name]
        assert action.help and len(action.help) > 10, field.name

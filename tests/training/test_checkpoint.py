"""Trees in files, and what a checkpoint may be resumed with."""

import json

import pytest
import torch
from regression import Regression, squared_error, train
from safetensors import safe_open
from torch import nn

from waveflow.errors import InputError
from waveflow.training.checkpoint import read_checkpoint, replace_file, write_checkpoint

TREES = {
    "plain": {"a": 1, "b": -0.1, "c": True, "d": None, "e": "text", "f": float("inf")},
    "nested": {"list": [1, (2.5, [])], "tuple": (), "dict": {}, 3: {"int key": 4}},
    "tensors": {
        "a": torch.arange(6).reshape(2, 3).T,
        "b": [torch.tensor(True), torch.tensor(1.5, dtype=torch.float64)],
    },
    "names that meet": {"a.b": torch.ones(1), "a": {"b": torch.zeros(2)}, "empty": torch.zeros(0, 3)},
}


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b)) and type(a) is type(b)
    return a == b and type(a) is type(b)


@pytest.mark.parametrize("name", TREES)
def test_trees_come_back(tmp_path, name):
    write_checkpoint(tmp_path / "file", TREES[name])
    assert equal(read_checkpoint(tmp_path / "file"), TREES[name])


def test_tied_weights_and_views_come_back(tmp_path):
    base = torch.randn(4, 4)
    write_checkpoint(
        tmp_path / "file", {"whole": base, "same": base, "column": base[:, 1], "wide": base[:1].expand(3, 4)}
    )
    tree = read_checkpoint(tmp_path / "file")
    assert torch.equal(tree["same"], base) and torch.equal(tree["column"], base[:, 1])
    assert torch.equal(tree["wide"], base[:1].expand(3, 4))


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "Adagrad", "LBFGS"])
def test_optimizer_states_come_back(tmp_path, optimizer):
    model = nn.Linear(3, 2)
    made = getattr(torch.optim, optimizer)(model.parameters(), lr=0.1)

    def closure():
        made.zero_grad()
        loss = model(torch.ones(1, 3)).square().sum()
        loss.backward()
        return loss

    made.step(closure)
    write_checkpoint(tmp_path / "file", made.state_dict())
    assert equal(read_checkpoint(tmp_path / "file"), made.state_dict())


def test_checkpoint_holds_tensors_by_name_and_no_pickle(tmp_path):
    train(tmp_path / "run", steps=2)
    with safe_open(tmp_path / "run" / "checkpoints" / "step-00000002.safetensors", "pt") as file:
        assert {"model.net.0.weight", "ema.average.net.0.weight", "optimizer.state.0.exp_avg"} <= set(file.keys())
        json.loads(file.metadata()["waveflow"])


def test_other_objects_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"a\.b is a set"):
        write_checkpoint(tmp_path / "file", {"a": {"b": {1}}})
    assert not list(tmp_path.iterdir())


def test_model_file_is_no_checkpoint(tmp_path):
    train(tmp_path / "run", steps=1)
    with pytest.raises(InputError, match=r"model\.safetensors is not a checkpoint"):
        read_checkpoint(tmp_path / "run" / "model.safetensors")


def test_failed_write_leaves_the_old_file(tmp_path):
    def fail(partial):
        partial.write_text("half")
        raise OSError("no space")

    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="no space"):
        replace_file(tmp_path / "file", fail)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"file": "old"}


def test_resume_with_another_configuration_names_the_field(tmp_path):
    train(tmp_path / "run", steps=1)
    with pytest.raises(InputError, match=r"step-00000001.* is of another model: hidden was \[4\], now \[5\]$"):
        train(tmp_path / "run", model=Regression(hidden=(5,)), steps=2, resume=True)


def test_resume_with_another_model_class_names_it(tmp_path):
    class Other(Regression):
        pass

    train(tmp_path / "run", steps=1)
    with pytest.raises(InputError, match="model was Regression, now Other"):
        train(tmp_path / "run", model=Other(), steps=2, resume=True)


def test_resume_with_other_tensors_names_them(tmp_path):
    train(tmp_path / "run", steps=1)
    model = Regression()
    model.net[2] = nn.Linear(4, 2)
    with pytest.raises(InputError, match=r"does not fit the model: net\.2\.weight was .*\(1, 4\).*, now .*\(2, 4\)"):
        train(tmp_path / "run", model=model, steps=2, resume=True)


def test_resume_in_another_precision_is_refused(tmp_path):
    train(tmp_path / "run", steps=1)
    with pytest.raises(InputError, match=r"torch\.float32.*now.*torch\.float64"):
        train(tmp_path / "run", steps=2, precision="64-true", resume=True)


def test_resume_with_another_optimizer_is_refused(tmp_path):
    train(tmp_path / "run", steps=1)
    with pytest.raises(InputError, match=r"was trained by Adam with \[4\] parameters, which SGD cannot continue"):
        train(tmp_path / "run", steps=2, optimizer=torch.optim.SGD, resume=True)


def test_changed_settings_are_reported_and_used(tmp_path, capsys):
    train(tmp_path / "run", steps=1)
    _, model, _ = train(tmp_path / "run", steps=2, learning_rate=1e-9, betas=(0.8, 0.9), resume=True)
    err = capsys.readouterr().err
    assert "learning_rate was 0.05, now 1e-09" in err and "betas was (0.9, 0.999), now (0.8, 0.9)" in err
    twin = Regression()
    twin.load_state_dict(read_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000001.safetensors")["model"])
    torch.testing.assert_close(model.net[0].weight, twin.net[0].weight, rtol=0, atol=1e-7)
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000002.safetensors")
    assert checkpoint["optimizer"]["param_groups"][0]["betas"] == (0.8, 0.9)


def test_objective_sees_the_same_model_after_resume(tmp_path):
    losses = []

    def objective(model, batch):
        figures = squared_error(model, batch)
        losses.append(figures["loss"].item())
        return figures

    train(tmp_path / "a", objective, steps=4)
    straight, losses[:] = losses.copy(), []
    train(tmp_path / "b", objective, steps=2)
    train(tmp_path / "b", objective, steps=4, resume=True)
    assert losses == straight

"""What is on the disk, whatever happens."""

import os
import shutil

import pytest
import torch
from regression import Regression, careless_validation, exported, metrics, noisy_squared_error, train
from safetensors.torch import load_file

from waveflow.errors import InputError
from waveflow.training import RunFolder, Trainer, TrainerConfig


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_layout(tmp_path):
    train(tmp_path / "run", steps=9, save_every=2, validate=careless_validation)
    names = {str(name) for name in contents(tmp_path / "run")}
    events = {name for name in names if name.startswith("logs/events.out.tfevents")}
    checkpoints = {"checkpoints/step-00000008.safetensors", "checkpoints/step-00000009.safetensors"}
    assert names - events == {"config.json", "model.safetensors", "logs/metrics.csv"} | checkpoints
    assert len(events) == 1


def test_a_run_is_not_overwritten(tmp_path):
    train(tmp_path / "run", steps=2)
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match=r"run already holds a run: resume it \(--resume\) or choose another folder"):
        train(tmp_path / "run", steps=2)
    assert contents(tmp_path / "run") == before


def test_nothing_to_resume(tmp_path):
    with pytest.raises(InputError, match=r"nothing to resume in .*run: there is no checkpoint"):
        Trainer(TrainerConfig(out=tmp_path / "run", resume=True))
    assert not (tmp_path / "run").exists()


def test_folder_under_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*file/run: Not a directory"):
        Trainer(TrainerConfig(out=tmp_path / "file" / "run"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_refused(tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(InputError, match=r"cannot write to .*run: Permission denied"):
        Trainer(TrainerConfig(out=tmp_path / "run"))


def test_too_little_disk_space_is_refused_at_the_start(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=500))
    with pytest.raises(InputError, match="MB of disk space free, the model and its checkpoints need"):
        train(tmp_path / "run", steps=2)


@pytest.mark.parametrize("victim", ["checkpoint", "model"])
def test_full_disk_at_a_save_leaves_the_last_save_intact(tmp_path, small_disk, victim):
    class Wide(Regression):
        def __init__(self):
            super().__init__(hidden=(40_000,))

    model_size, limits = 40_000 * 5 * 4, {"checkpoint": 1.5, "model": 0.5}
    state = {}

    def objective(model, batch):
        if model.calls == 5:
            state.update(contents(tmp_path / "run"))
            limit(int(limits[victim] * model_size))
        return noisy_squared_error(model, batch)

    refusal = r"could not save .* step 6 \(.*\); those of step-00000004 are intact"
    with small_disk() as limit, pytest.raises(OSError, match=refusal) as error:
        train(tmp_path / "run", objective, model=Wide(), steps=8, save_every=2)
    assert "\n" not in str(error.value)
    after = contents(tmp_path / "run")
    assert not [name for name in after if ".partial" in str(name)]
    for name in state:
        if name.suffix == ".safetensors" and (victim == "model" or name.parts[0] == "checkpoints"):
            assert after[name] == state[name]
    load_file(tmp_path / "run" / "model.safetensors")
    train(tmp_path / "run", noisy_squared_error, model=Wide(), steps=8, resume=True)


def test_whenever_the_process_dies_the_run_can_be_resumed_and_the_model_is_whole(tmp_path, monkeypatch):
    """Every state of the folder between two system calls that change names, for the whole second half of a run."""
    settings = {"objective": noisy_squared_error, "validate": careless_validation, "validate_every": 2}
    settings |= {"save_every": 2, "steps": 6, "log_every": 1}
    moments = []

    def snapshot():
        if (tmp_path / "run" / "model.safetensors").exists():
            assert (tmp_path / "run" / "config.json").exists()
        if len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) >= 1:
            moments.append(tmp_path / f"moment-{len(moments)}")
            shutil.copytree(tmp_path / "run", moments[-1])

    for module, name in ((os, "replace"), (os, "unlink"), (shutil, "rmtree")):
        original = getattr(module, name)

        def watched(*args, original=original, **kwargs):
            if str(tmp_path / "run") in str(args[0]):
                snapshot()
            original(*args, **kwargs)
            if str(tmp_path / "run") in str(args[0]):
                snapshot()

        monkeypatch.setattr(module, name, watched)
    train(tmp_path / "run", **settings)
    monkeypatch.undo()

    assert len(moments) > 20
    straight = contents(tmp_path / "run")
    partial = 0
    for moment in moments:
        assert (moment / "config.json").read_bytes() == (tmp_path / "run" / "config.json").read_bytes()
        assert exported(moment).keys() == exported(tmp_path / "run").keys()
        partial += bool(list(moment.rglob(".partial-*")))
    assert partial > 5
    for moment in moments[::7]:
        train(moment, resume=True, **settings)
        after = contents(moment)
        for name in straight:
            assert "events" in str(name) or after[name] == straight[name], (moment, name)
        assert not list(moment.rglob(".partial-*"))


def test_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path):
    settings = {"objective": noisy_squared_error, "save_every": 3}
    train(tmp_path / "run", steps=6, **settings)
    expected = exported(tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-00000006.safetensors"
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.warns(UserWarning, match=r"step-00000006.* is damaged .*continuing from step-00000003"):
        train(tmp_path / "run", steps=6, resume=True, **settings)
    assert all(torch.equal(tensor, exported(tmp_path / "run")[name]) for name, tensor in expected.items())


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    train(tmp_path / "run", steps=2)
    (tmp_path / "run" / "checkpoints" / "step-00000002.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"step-00000002\.safetensors is damaged"):
        train(tmp_path / "run", steps=4, resume=True)


def test_metrics_of_a_killed_process_beyond_its_checkpoint_are_forgotten(tmp_path):
    train(tmp_path / "run", steps=4, log_every=1)
    before = metrics(tmp_path / "run")
    with open(tmp_path / "run" / "logs" / "metrics.csv", "a") as file:
        file.write("5,train/loss,123.0\n6,train/lo")
    train(tmp_path / "run", steps=4, log_every=1, resume=True)
    assert metrics(tmp_path / "run") == before


def test_leftovers_are_cleared(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.prepare(resume=False)
    (folder.path / ".partial-model").mkdir()
    (folder.path / ".partial-model" / "config.json").write_text("")
    (folder.checkpoints / ".partial-step-00000001.safetensors").write_text("")
    folder.prepare(resume=False)
    assert contents(folder.path) == {}

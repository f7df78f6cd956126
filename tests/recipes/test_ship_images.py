"""A small run of images, made into a folder to ship."""

import csv
import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from waveflow.cli import run_command
from waveflow.data import load_images
from waveflow.models import GatedPixelCNN, Glow, load_model

FOLDER = Path(__file__).parents[2] / "recipes" / "mnist"


def script(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A Glow of 30 steps in two sittings."""
    out = tmp_path_factory.mktemp("runs") / "toy-run"
    for steps, more in ((20, ()), (30, ("--resume",))):
        words = (
            "--fields.steps",
            1,
            "--fields.hidden",
            8,
            "--validate-every",
            10,
            "--validate-images",
            10,
            "--samples",
            4,
        )
        words += ("--device", "cpu", "--test-images", 5, "--steps", steps, "--out", out, *more)
        assert run_command(lambda words=words: script("train_glow").main([str(w) for w in words]), "train_glow.py") == 0
    return out


@pytest.fixture
def ship(trained, tmp_path, capsys):
    def call(*words, run=trained, name="toy", code=0):
        words = ("--run", run, "--name", name, "--hardware", "a loom", "--out", tmp_path / "out", *words)
        found = run_command(lambda: script("ship").main([str(word) for word in words]), "ship.py")
        said = capsys.readouterr()
        assert found == code, said.err
        return tmp_path / "out" / name, said.err

    return call


def test_what_is_in_the_folder(ship, trained):
    folder, _ = ship()
    names = {"README.md", "config.json", "model.safetensors", "figures.json", "training.csv", "training.png"}
    assert {path.name for path in folder.iterdir()} == names | {"samples.png", "temperatures.png"}
    stored, best = load_file(folder / "model.safetensors"), load_model(trained / "best")
    for name, parameter in best.named_parameters():
        assert stored[name].dtype == (torch.bfloat16 if parameter.ndim == 4 else torch.float32)
        assert torch.equal(stored[name], parameter.to(stored[name].dtype))
    with open(folder / "training.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "10", "20", "30"]


def test_figures_are_those_of_the_rounded_weights(ship, trained):
    folder, _ = ship()
    figures, card = json.loads((folder / "figures.json").read_text()), (folder / "README.md").read_text()
    digits, model = load_images("digits").test, load_model(folder)
    draws = [model.bits_per_dim(digits.images, generator=torch.Generator().manual_seed(i)).mean() for i in range(10)]
    bits = torch.stack(draws).mean().item()
    assert figures["shipped"]["bits_per_dim"] == pytest.approx(bits, abs=0.02) and figures["shipped"]["images"] == 179
    assert figures["shipped"]["bits_per_dim"] != figures["trained"]["bits_per_dim"]
    assert figures["shipped"]["pixels_changed"] == (model.decode(model.encode(digits.images)) != digits.images).sum()
    row = re.search(r"\| bits/dim \| (\S+) ± \S+ \| (\S+) ± \S+ \|", card)
    assert float(row[1]) == pytest.approx(figures["trained"]["bits_per_dim"], abs=1e-4)
    assert float(row[2]) == pytest.approx(figures["shipped"]["bits_per_dim"], abs=1e-4)
    count = sum(p.numel() for p in model.parameters())
    best = json.loads((trained / "best" / "best.json").read_text())["step"]
    assert f"({count:,} parameters)" in card and f"{best} of 64 images" in card and "| hardware | a loom |" in card


def test_exact_models_have_no_inverse(ship, tmp_path):
    words = ("--fields", "{hidden: 6, layers: 1, first_kernel: 3}", "--binary", "--steps", 2, "--device", "cpu")
    words += ("--validate-images", 5, "--test-images", 5, "--samples", 4, "--out", tmp_path / "run")
    assert run_command(lambda: script("train_pixelcnn").main([str(w) for w in words]), "train_pixelcnn.py") == 0
    folder, _ = ship(run=tmp_path / "run")
    card = (folder / "README.md").read_text()
    assert "test images (exact)" in card and "inverse" not in card and isinstance(load_model(folder), GatedPixelCNN)


def test_nothing_is_left_of_what_fails(ship, trained, tmp_path, monkeypatch):
    folder, _ = ship()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    _, errors = ship(code=2)
    assert "is there already" in errors
    module = script("ship")
    monkeypatch.setattr(module, "LIMIT", 100)
    words = ["--run", str(trained), "--name", "toy", "--hardware", "x", "--out", str(tmp_path / "out"), "--replace"]
    assert run_command(lambda: module.main(words), "ship.py") == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["toy"]


@pytest.mark.parametrize("harm", ["empty", "no record", "no name"])
def test_what_is_no_run_is_refused_in_one_line(harm, ship, trained, tmp_path):
    run = tmp_path / "other"
    run.mkdir()
    if harm == "no record":
        (run / "checkpoints").symlink_to(trained / "checkpoints")
        Glow.from_preset("digits", steps=1, hidden=4).save_pretrained(run)
    _, errors = ship(run=run, name="../x" if harm == "no name" else "toy", code=2)
    message = {"empty": "nothing to resume", "no record": "expected the record", "no name": "--name expects"}[harm]
    assert message in errors and "Traceback" not in errors and not (tmp_path / "out").exists()

"""normflows' Glow behind the face of this project's models of images."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch

from waveflow.cli import run_command

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = ("--fields.steps", 1, "--fields.hidden", 4, "--size", 8, "--steps", 4, "--batch-size", 8, "--samples", 4)


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("train_normflows_glow", FOLDER / "train_normflows_glow.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(recipe, tmp_path, capsys):
    def call(*words) -> tuple[int, str]:
        words = (
            *TINY,
            "--device",
            "cpu",
            "--validate-images",
            8,
            "--test-images",
            8,
            "--out",
            tmp_path / "run",
            *words,
        )
        code = run_command(lambda: recipe.main([str(word) for word in words]), "train_normflows_glow.py")
        return code, capsys.readouterr().err

    return call


def test_it_is_trained_resumed_and_tested(run, recipe, tmp_path):
    pytest.importorskip("normflows")
    assert run("--flips")[0] == 0 and run("--flips", "--resume", "--steps", 6)[0] == 0
    found = json.loads((tmp_path / "run" / "logs" / "test.json").read_text())
    assert (found["model"], found["steps"], found["exact"]) == ("NormflowsGlow", 6, False)
    assert {path.name for path in (tmp_path / "run" / "samples").iterdir()} >= {"samples.png", "temperatures.png"}
    model = recipe.NormflowsGlow.from_pretrained(tmp_path / "run" / "best")
    a, b, c = (model.sample(3, 0.7, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_its_bits_are_those_of_a_sum_by_hand(recipe):
    pytest.importorskip("normflows")
    torch.manual_seed(0)
    model = recipe.NormflowsGlow(channels=3, height=8, width=8, levels=2, steps=1, hidden=4)
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    model.initialize(images)
    y = (images + torch.rand(images.shape, generator=torch.Generator().manual_seed(3))) / 256
    by_hand = 8 - model.peer.log_prob(y, None) / (192 * math.log(2))
    found = model.bits_per_dim(images, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-4)


def test_without_normflows_one_line_says_so(run, recipe, monkeypatch):
    def missing(*sizes):
        raise ModuleNotFoundError("No module named 'normflows'")

    monkeypatch.setattr(recipe.glow_peers, "normflows", missing)
    code, errors = run()
    assert code == 2 and "needs normflows" in errors and "Traceback" not in errors

"""The recipes of WaveNet and WaveFlow: what they share with WaveGlow's, whose test is longer, and what they do not."""

import importlib.util
import math
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from waveflow.cli import main as waveflow
from waveflow.cli import run_command
from waveflow.models import WaveFlow, WaveNet, load_model
from waveflow.training import Trainer

RECIPES = Path(__file__).parents[2] / "recipes" / "ljspeech"
NARROW = {"layers": 2, "channels": 8, "upsampler": "linear", "context_channels": 8}
TOYS = {"wavenet": (WaveNet, {**NARROW, "first_kernel": 4}), "waveflow": (WaveFlow, {**NARROW, "flows": 2})}
both = pytest.mark.parametrize("name", TOYS)


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    for model, fields in TOYS.values():
        monkeypatch.setattr(model, "PRESETS", {**model.PRESETS, "toy": fields})


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Six clips of something like a voice; one is held out."""
    folder = tmp_path_factory.mktemp("data")
    noise = np.random.default_rng(0)
    t = np.arange(int(0.8 * 22050)) / 22050
    for i in range(6):
        tone = sum(np.sin(2 * math.pi * (110 + 10 * i) * k * t) / k for k in range(1, 12))
        wave = 0.1 * tone * (1 + 0.5 * np.sin(2 * math.pi * 4 * t)) + 0.003 * noise.standard_normal(len(t))
        soundfile.write(folder / f"clip-{i}.wav", wave, 22050)
    return folder


@pytest.fixture
def train(data, capsys):
    """Run a recipe in this process: (exit code, standard output, standard error)."""

    def call(name, out, *words, steps=2, preset="toy") -> tuple[int, str, str]:
        spec = importlib.util.spec_from_file_location(name, RECIPES / f"train_{name}.py")
        recipe = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(recipe)
        small = ("--data", data, "--preset", preset, "--segment", 2048, "--device", "cpu", "--out", out)
        words = (*small, "--batch-size", 2, "--steps", steps, *words)
        capsys.readouterr()
        code = run_command(lambda: recipe.main([str(word) for word in words]), f"train_{name}.py")
        return code, *capsys.readouterr()

    return call


def files(out) -> dict[str, bytes]:
    paths = [path for path in out.rglob("*") if path.is_file() and "tfevents" not in path.name]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def figures(out, name: str) -> list[float]:
    rows = (out / "logs" / "metrics.csv").read_text().splitlines()
    return [float(row.split(",")[2]) for row in rows if row.split(",")[1] == name]


@both
def test_leaves_what_it_promises(train, data, tmp_path, name, capsys):
    out = tmp_path / "run"
    code, said, _ = train(name, out, steps=4)
    assert code == 0
    assert set(files(out)) == {
        "config.json",
        "model.safetensors",
        "checkpoints/step-00000004.safetensors",
        "logs/metrics.csv",
        "samples/clip-5-generated.wav",
        "samples/clip-5-real.wav",
        "samples/clip-5.png",
    }
    *_, told, where, listen = said.splitlines()
    first, last = map(float, re.search(r"(\S+) -> (\S+) nats per sample", told).groups())
    assert last > first and str(out) in where and "clip-5-generated.wav" in listen
    assert type(load_model(out)) is TOYS[name][0]
    assert waveflow(["evaluate", "--model", str(out), "--data", str(data), "--held-out"]) == 0
    printed = float(re.search(r'"nats_per_sample": (\S+),', capsys.readouterr().out)[1])
    assert printed == pytest.approx(figures(out, "validate/nats_per_sample")[-1], abs=1e-4)


@both
def test_a_run_in_two_parts_equals_one(train, tmp_path, name):
    evaluations = ("--validate-every", 2, "--save-every", 2)
    assert train(name, tmp_path / "whole", *evaluations, steps=4)[0] == 0
    assert train(name, tmp_path / "parts", *evaluations)[0] == 0
    assert train(name, tmp_path / "parts", *evaluations, "--resume", steps=4)[0] == 0
    assert files(tmp_path / "whole") == files(tmp_path / "parts")


def test_wavenet_reports_scales_at_their_floor(train, tmp_path, caplog, monkeypatch):
    assert train("wavenet", tmp_path / "run")[0] == 0
    assert figures(tmp_path / "run", "validate/floor_share") == [0.0, 0.0]
    assert "at their floor on held-out clips" not in caplog.text
    monkeypatch.setattr(WaveNet, "floor_share", lambda self, *clip: 0.25)
    assert train("wavenet", tmp_path / "floored")[0] == 0
    assert figures(tmp_path / "floored", "validate/floor_share") == [0.25, 0.25]
    assert "WaveNet: 25 % of its log-scales are at their floor on held-out clips" in caplog.text


def test_wavenet_is_heard_for_a_while_only(train, tmp_path):
    assert train("wavenet", tmp_path / "run", "--heard-seconds", 0.5)[0] == 0
    for which in ("generated", "real"):
        heard, _ = soundfile.read(tmp_path / "run" / "samples" / f"clip-5-{which}.wav")
        assert len(heard) == round(0.5 * 22050 / 256) * 256


@pytest.mark.parametrize("head", ["logistics", "mol", "softmax"])
def test_wavenet_trains_with_every_head(train, tmp_path, monkeypatch, head):
    monkeypatch.setitem(WaveNet.PRESETS, "toy", {**TOYS["wavenet"][1], "head": head, "components": 2})
    assert train("wavenet", tmp_path / "run", "--heard-seconds", 0.2)[0] == 0


@pytest.mark.parametrize(
    ("name", "preset", "expected"),
    [
        ("wavenet", "gaussian", {"learning_rate": 1e-3, "ema_decay": 0.9999, "halve_at": (200_000, 400_000, 600_000)}),
        ("wavenet", "tiny", {"learning_rate": 4e-3, "ema_decay": 0.999, "warmup_steps": 50}),
        ("waveflow", "ljspeech-64", {"learning_rate": 2e-4, "clip_norm": 5.0, "decay_after": 0}),
        ("waveflow", "tiny", {"learning_rate": 4e-3, "decay_after": 2000}),
    ],
)
def test_presets_are_trained_as_published(train, tmp_path, monkeypatch, name, preset, expected):
    seen = []

    def fit(self, *arguments, **more):
        seen.append(self.config)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "fit", fit)
    assert train(name, tmp_path / "run", preset=preset)[0] == 130
    assert {key: getattr(seen[0], key) for key in expected} == expected
    assert train(name, tmp_path / "other", "--learning-rate", "5e-4", preset=preset)[0] == 130
    assert seen[1].learning_rate == 5e-4


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("wavenet", ("--heard-seconds", 0), "--heard-seconds"),
        ("wavenet", ("--memory", "invert"), "--memory"),
        ("wavenet", ("--preset", "huge"), "gaussian"),
        ("waveflow", ("--preset", "huge"), "ljspeech-64"),
        ("waveflow", ("--segment", 1001), "multiple of 16"),
        ("waveflow", ("--validate-clips", -1), "--validate-clips"),
    ],
)
def test_bad_settings_are_refused(train, tmp_path, name, words, expected):
    code, _, errors = train(name, tmp_path / "run", *words)
    assert code == 2 and "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith(f"train_{name}.py: error: ")]
    assert expected in line
    assert not any(path.is_file() for path in (tmp_path / "run").rglob("*"))

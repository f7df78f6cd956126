"""The benchmark of whitening, rehearsed with a model small enough to do so often."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from waveflow.cli import run_command
from waveflow.data import SpeechSegments, WholeClips, find_clips, split_clips
from waveflow.evaluation import nats_per_sample
from waveflow.models import WaveGlow

ROOT = Path(__file__).parents[2]
TOY = {
    "flows": 1,
    "group": 8,
    "early_every": 0,
    "layers": 1,
    "channels": 4,
    "upsampler": "linear",
    "scale": "tanh_exp",
    "actnorm": True,
    "whiten": True,
    "whiten_order": 8,
}


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setattr(WaveGlow, "PRESETS", {**WaveGlow.PRESETS, "tiny": TOY})


@pytest.fixture
def whitening(monkeypatch):
    module = script(ROOT / "benchmarks" / "whitening.py")
    monkeypatch.setattr(module, "TURN", 0.05)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three clips of coloured noise that rises and falls like syllables; one is held out."""
    folder = tmp_path_factory.mktemp("data")
    noise = np.random.default_rng(0)
    time = np.arange(22050) / 22050
    for i in range(3):
        level = 0.002 + 0.05 * np.sin(2 * np.pi * 4 * time) ** 2
        smooth = np.convolve(noise.standard_normal(len(time)), np.hanning(16), "same")
        soundfile.write(folder / f"clip-{i}.wav", 0.5 * level * smooth, 22050)
    return folder


def benchmark(module, *words) -> int:
    return run_command(lambda: module.main([str(word) for word in words]), "whitening.py")


def test_draws_curves_of_equal_cpu_time(whitening, data, tmp_path):
    out = tmp_path / "out"
    words = ("--data", data, "--minutes", 0.01, "--evaluate-every", 0.006, "--clips", 1, "--out", out)
    assert benchmark(whitening, *words) == 0

    rows = list(csv.DictReader((out / "whitening.csv").open()))
    assert list(rows[0]) == ["variant", "cpu_minutes", "steps", "nats_per_sample", "stoi", "log_mel_l1"]
    of = {name: [row for row in rows if row["variant"] == name] for name in whitening.VARIANTS}
    for curve in of.values():
        minutes, steps = ([float(row[name]) for row in curve] for name in ("cpu_minutes", "steps"))
        assert minutes[0] == steps[0] == 0 and steps[-1] > 0 and steps == sorted(steps)
        for spent, goal in zip(minutes, (0, 0.006, 0.01), strict=True):
            assert spent >= goal
    start = {name: {figure: float(curve[0][figure]) for figure in whitening.FIGURES} for name, curve in of.items()}
    assert start["whitened"] == start["whitened, corrected"]
    assert start["whitened"]["nats_per_sample"] > start["plain"]["nats_per_sample"] + 0.1
    assert start["whitened"]["log_mel_l1"] < start["plain"]["log_mel_l1"]
    assert imread(out / "whitening.png").shape == (380, 1200, 4)


def test_trains_as_the_recipe_does(whitening, data, tmp_path):
    recipe = script(ROOT / "recipes" / "ljspeech" / "train_waveglow.py")
    words = ("--data", data, "--preset", "tiny", "--steps", 3, "--seed", 4, "--device", "cpu", "--out", tmp_path)
    assert run_command(lambda: recipe.main([str(word) for word in words])) == 0

    exported = WaveGlow.from_pretrained(tmp_path)

    train_clips, held_out_clips = split_clips(find_clips(data))
    segments = SpeechSegments(train_clips, exported.mel_config, whitening.SEGMENT, seed=4)
    held_out = WholeClips(held_out_clips, exported.mel_config)
    training = whitening.Training({}, segments, seed=4)
    for _ in range(3):
        training.step()
    found = training.evaluate(held_out, copied=1, seed=0)
    assert found["nats_per_sample"] == pytest.approx(nats_per_sample(exported, held_out).nats_per_sample, abs=1e-6)
    with training.ema.applied():
        ours, theirs = training.model.state_dict(), exported.state_dict()
        assert max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in theirs) < 1e-6


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--minutes", 0), "--minutes expects a positive number, got 0.0"),
        (("--evaluate-every", ".inf"), "--evaluate-every expects a positive number, got inf"),
        (("--clips", -1), "--clips expects a positive number, got -1"),
        (("--data", "nowhere"), "expected a folder of audio at nowhere, got nothing there"),
    ],
)
def test_refuses_bad_input_in_one_line(whitening, words, complaint, tmp_path, capsys):
    assert benchmark(whitening, "--out", tmp_path / "out", *words) == 2
    assert capsys.readouterr().err == f"whitening.py: error: {complaint}\n"
    assert not (tmp_path / "out").exists()


def test_keeps_what_another_run_left(whitening, data, tmp_path, capsys):
    (tmp_path / "whitening.csv").write_text("curves")
    assert benchmark(whitening, "--data", data, "--minutes", 0.001, "--out", tmp_path) == 2
    assert "is there already; say by --out DIR" in capsys.readouterr().err
    assert (tmp_path / "whitening.csv").read_text() == "curves"

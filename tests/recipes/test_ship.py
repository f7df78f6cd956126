"""A small run trained by the recipe, made into a folder to ship."""

import csv
import importlib.util
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.image import imread
from safetensors.torch import load_file

from waveflow.cli import run_command
from waveflow.data import Batches, SpeechSegments, WholeClips, find_clips, split_clips
from waveflow.distributions import speech_likelihood
from waveflow.evaluation import mean_stoi, nats_per_sample
from waveflow.models import WaveGlow
from waveflow.training import Trainer, TrainerConfig

FOLDER = Path(__file__).parents[2] / "recipes" / "ljspeech"
TOY = {"flows": 2, "group": 8, "early_every": 0, "layers": 1, "channels": 8, "upsampler": "linear", "actnorm": True}


def script(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(FOLDER))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eleven clips of something like a voice; one is held out."""
    folder = tmp_path_factory.mktemp("data")
    noise, t = np.random.default_rng(0), np.arange(int(0.8 * 22050)) / 22050
    for i in range(11):
        tone = sum(np.sin(2 * math.pi * (110 + 10 * i) * k * t) / k for k in range(1, 12))
        wave = 0.1 * tone * (1 + 0.5 * np.sin(2 * math.pi * 4 * t)) + 0.003 * noise.standard_normal(len(t))
        soundfile.write(folder / f"clip-{i:02}.wav", wave, 22050)
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run of 40 steps, resumed once."""
    out = tmp_path_factory.mktemp("runs") / "toy-run"
    train, held_out = split_clips(find_clips(data))
    for steps in (20, 40):
        shared = {"out": out, "learning_rate": 0.01, "batch_size": 2, "device": "cpu", "validate_every": 10}
        trainer = Trainer(TrainerConfig(**shared, steps=steps, resume=steps > 20))
        model = WaveGlow(**TOY)
        clips = WholeClips(held_out, model.mel_config, progress=False)
        segments = SpeechSegments(train, model.mel_config, 2048, progress=False)

        def validate(model, clips=clips):
            return {"nats_per_sample": nats_per_sample(model, clips).nats_per_sample, "stoi": mean_stoi(model, clips)}

        trainer.fit(model, speech_likelihood, Batches(segments, 2, seed=0), validate=validate)
    return out


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "toy-run")


@pytest.fixture
def ship(data, tmp_path, capsys):
    module = script("ship")

    def call(run, *words) -> tuple[int, str]:
        fixed = {"run": run, "data": data, "segment": 2048, "hardware": "an abacus", "out": tmp_path / "shipped"}
        flags = [f"--{name}={value}" for name, value in fixed.items()]
        capsys.readouterr()
        code = run_command(lambda: module.main([*flags, *map(str, words)]), "ship.py")
        return code, capsys.readouterr().err

    call.module = module
    return call


@pytest.fixture
def refused(ship, tmp_path):
    """Expect one clear line, and nothing left; return the line."""

    def call(run, *words) -> str:
        before = sorted(tmp_path.glob("shipped/**/*"))
        code, errors = ship(run, *words)
        (line,) = (line for line in errors.splitlines() if line.startswith("ship.py: error: "))
        assert code == 2 and "Traceback" not in errors
        assert sorted(tmp_path.glob("shipped/**/*")) == before
        return line.removeprefix("ship.py: error: ")

    return call


def test_leaves_a_folder_that_speaks_and_says_what_it_is(ship, run, data, tmp_path):
    assert ship(run)[0] == 0
    folder = tmp_path / "shipped" / "toy-run"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "README.md",
        "config.json",
        "figures.json",
        "model.safetensors",
        "samples/clip-10.flac",
        "samples/clip-10.png",
        "training.csv",
        "training.png",
    }
    assert (tmp_path / "shipped" / "best.txt").read_text() == "toy-run\n"
    assert sorted(path.name for path in (tmp_path / "shipped").iterdir()) == ["best.txt", "toy-run"]

    model, before = WaveGlow.from_pretrained(folder), WaveGlow.from_pretrained(run)
    stored = load_file(folder / "model.safetensors")
    for name, parameter in before.named_parameters():
        assert stored[name].dtype == torch.bfloat16 and torch.equal(stored[name], parameter.bfloat16())

    # what the script measured, measured again on the folder itself
    held_out = WholeClips(split_clips(find_clips(data))[1], model.mel_config, progress=False)
    figures = json.loads((folder / "figures.json").read_text())
    for found, told in ((model, figures["shipped"]), (before, figures["trained"])):
        assert told["nats_per_sample"] == pytest.approx(nats_per_sample(found, held_out).nats_per_sample, abs=1e-4)
        assert told["stoi"] == pytest.approx(mean_stoi(found, held_out), abs=1e-3)
    assert figures["shipped"]["nats_per_sample"] != figures["trained"]["nats_per_sample"]
    card = (folder / "README.md").read_text()
    for key, name, digits in (("nats_per_sample", "nats per sample", 3), ("mcd", "MCD, dB", 2)):
        row = [f"{figures[which][key]:.{digits}f}" for which in ("trained", "unmatched", "shipped")]
        assert f"| {name} | {' | '.join(row)} |" in card
    assert model.config.match == 3 and before.config.match == 0
    assert figures["shipped"]["log_mel_l1"] < 0.7 * figures["unmatched"]["log_mel_l1"]
    assert "| as shipped, 3 rounds |" in card and "That would do much for noise, too" in card
    for said in ("40 of 2 segments of 2,048 samples", "an abacus", "10 clips, 0.1 minutes"):
        assert said in card
    assert "0.2 million: every one 0.9 times" in card  # 40 x 2 x 2048 of 10 x 17640
    assert "learning rate 0.01" in card and "public domain" in card

    copy, rate = soundfile.read(folder / "samples" / "clip-10.flac")
    assert rate == 22050 and soundfile.info(folder / "samples" / "clip-10.flac").subtype == "PCM_16"
    z = torch.Generator().manual_seed(0)
    expected = model.vocode(held_out[0]["mel"][None], generator=z)[0].clamp(-1, 1)
    np.testing.assert_allclose(copy, expected, atol=1e-3)
    assert imread(folder / "samples" / "clip-10.png").std() > 0.05


def test_copies_need_not_be_matched(ship, run, tmp_path):
    assert ship(run, "--match", "0")[0] == 0
    folder = tmp_path / "shipped" / "toy-run"
    card, figures = (folder / "README.md").read_text(), json.loads((folder / "figures.json").read_text())
    assert WaveGlow.from_pretrained(folder).config.match == 0 and figures["unmatched"] is None
    assert "| | as trained | as shipped |" in card and "Matched" not in card


def test_curves_are_those_of_the_log(ship, run, tmp_path):
    assert ship(run)[0] == 0
    rows = list(csv.DictReader((tmp_path / "shipped" / "toy-run" / "training.csv").open()))
    log = list(csv.DictReader((run / "logs" / "metrics.csv").open()))
    for name in ("validate/nats_per_sample", "validate/stoi", "train/nats_per_sample"):
        told = {row["step"]: float(row[name]) for row in rows if row[name]}
        assert told == pytest.approx({r["step"]: float(r["value"]) for r in log if r["name"] == name}, rel=1e-4)
        assert len(told) == (4 if name.startswith("train") else 5)
    assert imread(tmp_path / "shipped" / "toy-run" / "training.png").shape == (360, 1100, 4)


def test_long_curves_are_averaged_over_stretches(tmp_path):
    module = script("training_curve")
    lines = ["step,name,value", "5,validate/stoi,0.5", "20005,validate/stoi,0.9"]
    lines += [f"{step},train/nats_per_sample,{step % 3}" for step in range(10, 20000, 10)]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    curves = module.read_curves(tmp_path / "metrics.csv", last=20000)
    assert curves["validate/stoi"] == {5: 0.5}
    curve = curves["train/nats_per_sample"]
    assert len(curve) == 400 and max(curve) == 19990
    assert curve[50] == pytest.approx((10 % 3 + 20 % 3 + 30 % 3 + 40 % 3 + 50 % 3) / 5)


def test_the_first_is_the_best_until_another_is_said_to_be(ship, refused, run, tmp_path):
    assert ship(run)[0] == 0
    assert ship(run, "--name", "second")[0] == 0
    assert (tmp_path / "shipped" / "best.txt").read_text() == "toy-run\n"
    (tmp_path / "shipped" / "second" / "old").touch()
    assert refused(run, "--name", "second").endswith("second is there already; say --replace, or another --name")
    assert ship(run, "--name", "second", "--best", "--replace", "--hours", 2.5)[0] == 0
    assert (tmp_path / "shipped" / "best.txt").read_text() == "second\n"
    assert not (tmp_path / "shipped" / "second" / "old").exists()
    assert "| hours | 2.50 |" in (tmp_path / "shipped" / "second" / "README.md").read_text()


def test_a_model_too_large_is_refused(ship, refused, run, monkeypatch):
    monkeypatch.setattr(ship.module, "LIMIT", 20_000)
    assert "MB in bfloat16, at most 0.02 do" in refused(run)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda run: shutil.rmtree(run), "nothing to resume in"),
        (lambda run: (run / "model.safetensors").unlink(), "has a config.json but no model.safetensors"),
        (lambda run: (run / "model.safetensors").write_bytes(b"\x40"), "truncated or not a safetensors file"),
        (lambda run: (run / "config.json").unlink(), "no checkpoint here"),
        (lambda run: (run / "logs" / "metrics.csv").unlink(), "there is no log of a training run"),
        (lambda run: (run / "logs" / "metrics.csv").write_text("step,name,value\n1,a,b\n"), "expected lines of"),
        (lambda run: (run / "logs" / "metrics.csv").write_text("step,name,value\n"), "holds no validation"),
        (lambda run: [path.unlink() for path in (run / "logs").glob("events*")], "say --hours"),
    ],
)
def test_half_a_run_is_refused(refused, run, spoil, expected):
    spoil(run)
    assert expected in refused(run)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--segment", 0), "--segment has to be given"),
        (("--hardware", ""), "--hardware has to be given"),
        (("--clips", 0), "--clips expects at least 1, got 0"),
        (("--name", "../up"), "--name expects letters, digits, '-', '_' and '.', got '../up'"),
        (("--data", "nowhere"), "expected a folder of audio at nowhere, got nothing there"),
        (("--hours", -1), "--hours expects a positive number, got -1.0"),
    ],
)
def test_wrong_flags_are_refused(refused, run, words, expected):
    assert expected in refused(run, *words)


def test_nothing_is_left_half_written(ship, refused, run, tmp_path, monkeypatch):
    assert ship(run)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "shipped").rglob("*") if path.is_file()}

    def full(*arguments):
        raise OSError(28, "No space left on device", "samples/clip-10.png")

    monkeypatch.setattr(ship.module, "mel_picture", full)
    assert "No space left on device" in refused(run, "--replace")
    monkeypatch.setattr(ship.module, "mel_picture", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    assert ship(run, "--replace")[0] == 130
    assert {path: path.read_bytes() for path in (tmp_path / "shipped").rglob("*") if path.is_file()} == before

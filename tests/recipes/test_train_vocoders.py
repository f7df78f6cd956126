"""The recipes of WaveNet and WaveFlow: what they share with WaveGlow's, whose test is longer, and what they do not."""

import importlib.util
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from waveflow.audio import MelConfig
from waveflow.cli import main as waveflow
from waveflow.cli import parse_arguments, run_command
from waveflow.models import WaveFlow, WaveGlow, WaveNet, load_model
from waveflow.training import Trainer

RECIPES = Path(__file__).parents[2] / "recipes" / "ljspeech"
NARROW = {"layers": 2, "channels": 8, "upsampler": "linear", "context_channels": 8}
TOYS = {
    "wavenet": (WaveNet, {**NARROW, "first_kernel": 4}),
    "waveflow": (WaveFlow, {**NARROW, "flows": 2}),
    "waveglow": (WaveGlow, {**NARROW, "flows": 2, "group": 8, "early_every": 0}),
}
both = pytest.mark.parametrize("name", ["wavenet", "waveflow"])
every = pytest.mark.parametrize("name", TOYS)


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


def recipe_of(name):
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"train_{name}.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe


@pytest.fixture
def train(data, capsys):
    """Run a recipe in this process: (exit code, standard output, standard error)."""

    def call(name, out, *words, steps=2, preset="toy") -> tuple[int, str, str]:
        recipe = recipe_of(name)
        recipe.TRAINING["toy"] = recipe.TRAINING["tiny"]
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
        ("waveglow", "tiny", {"learning_rate": 4e-3, "betas": (0.9, 0.99), "decay_after": 2000}),
        ("waveglow", "ljspeech-64", {"learning_rate": 1e-4, "clip_norm": 100.0}),
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


@every
def test_the_table_of_training_has_every_preset(name, monkeypatch):
    monkeypatch.undo()  # without the toys
    assert set(recipe_of(name).TRAINING) == set(TOYS[name][0].PRESETS)


@every
def test_fields_of_the_preset_are_replaced_and_the_run_can_be_resumed(train, tmp_path, name):
    words = ("--fields.whiten", "true", "--fields.whiten_order", 8, "--fields.channels", 6, "--validate-every", 2)
    words += ("--save-every", 2)
    words += ("--heard-seconds", 0.2) if name == "wavenet" else ()
    assert train(name, tmp_path / "whole", *words, steps=4)[0] == 0
    config = load_model(tmp_path / "whole").config
    assert (config.whiten, config.whiten_order, config.channels, config.layers) == (True, 8, 6, 2)
    assert train(name, tmp_path / "parts", *words)[0] == 0
    assert train(name, tmp_path / "parts", *words, "--resume", steps=4)[0] == 0
    assert files(tmp_path / "whole") == files(tmp_path / "parts")
    left = files(tmp_path / "parts")
    for others in (words[2:], (*words, "--fields.whiten", "false")):
        code, _, errors = train(name, tmp_path / "parts", *others, "--resume", steps=6)
        assert code == 2 and "is of another model: " in errors and "whiten was True, now False" in errors
    assert files(tmp_path / "parts") == left


@every
def test_fields_go_through_a_file(tmp_path, name, capsys):
    fields = ("--fields.whiten", "false", "--fields.layers", "3", "--fields.mel", "hifigan-22k")
    with pytest.raises(SystemExit):
        recipe_of(name).main(["--preset", "toy", "--steps", "1", *fields, "--print_config"])
    printed = capsys.readouterr().out
    (tmp_path / "run.yaml").write_text(printed)
    recipe = recipe_of(name)
    again = parse_arguments(recipe.Arguments, ["--config", str(tmp_path / "run.yaml")])
    assert again.fields == {"whiten": False, "layers": 3, "mel": "hifigan-22k"}
    assert again == parse_arguments(recipe.Arguments, ["--preset", "toy", "--steps", "1", *fields])


def test_a_mel_is_named_or_written_out(train, tmp_path):
    mel = {**MelConfig.from_preset("tacotron2").to_dict(), "n_mels": 40}
    words = ("--heard-seconds", 0.1, "--fields.mel")
    assert train("wavenet", tmp_path / "a", *words, "hifigan-22k")[0] == 0
    assert load_model(tmp_path / "a").mel_config == MelConfig.from_preset("hifigan-22k")
    assert train("wavenet", tmp_path / "b", *words, json.dumps(mel))[0] == 0
    assert load_model(tmp_path / "b").mel_config.n_mels == 40


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("waveglow", ("--fields.witen", "false"), "WaveGlow has no field witen; its fields are actnorm, "),
        ("waveglow", ("--fields.whiten", "maybe"), "WaveGlow expects whiten as true or false, got 'maybe'"),
        ("waveglow", ("--fields.channels", "wide"), "WaveGlow expects channels as a whole number, got 'wide'"),
        ("waveglow", ("--fields.group", 7), "WaveGlow expects an even group"),
        ("waveglow", ("--fields", "3"), "--fields"),
        ("waveflow", ("--fields.whiten", 1), "WaveFlow expects whiten as true or false, got 1"),
        ("waveflow", ("--fields.temperature", 0.5), "--fields expects no temperature, which is chosen at the end"),
        ("wavenet", ("--fields.head", "gausian"), 'WaveNet expects head "gaussian" or '),
        ("wavenet", ("--fields.speakers", 2), "--fields expects no speakers"),
        ("wavenet", ("--fields.mel", "no-such"), "unknown mel configuration 'no-such'"),
        ("wavenet", ("--fields.mel", "{n_mels: 40}"), "the mel configuration lacks sample_rate"),
        ("wavenet", ("--fields.mel", 3), "WaveNet expects mel as a MelConfig, got 3"),
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

"""The WaveGlow recipe as its users run it, with a model and clips small enough to do so often."""

import importlib.util
import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file

from waveflow.cli import main as waveflow
from waveflow.cli import run_command
from waveflow.data import WholeClips, find_clips, split_clips
from waveflow.evaluation import choose_temperature
from waveflow.models import WaveGlow

RECIPE = Path(__file__).parents[2] / "recipes" / "ljspeech" / "train_waveglow.py"
TOY = {"flows": 2, "group": 8, "early_every": 0, "layers": 2, "channels": 8, "upsampler": "linear", "actnorm": True}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setattr(WaveGlow, "PRESETS", {**WaveGlow.PRESETS, "toy": TOY})


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Twelve clips of something like a voice; one is held out."""
    folder = tmp_path_factory.mktemp("data")
    noise = np.random.default_rng(0)
    t = np.arange(int(0.8 * 22050)) / 22050
    for i in range(12):
        tone = sum(np.sin(2 * math.pi * (110 + 10 * i) * k * t) / k for k in range(1, 12))
        wave = 0.1 * tone * (1 + 0.5 * np.sin(2 * math.pi * 4 * t)) + 0.003 * noise.standard_normal(len(t))
        soundfile.write(folder / f"clip-{i:02}.wav", wave, 22050)
    return folder


@pytest.fixture
def train(data, capsys):
    """Run the recipe in this process: (exit code, standard output, standard error)."""
    spec = importlib.util.spec_from_file_location("train_waveglow", RECIPE)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    recipe.TRAINING["toy"] = recipe.TRAINING["tiny"]

    def call(out, *words, steps=4, toy=True) -> tuple[int, str, str]:
        small = ("--data", data, "--preset", "toy", "--segment", 2048, "--device", "cpu") if toy else ()
        words = ("--batch-size", 2, "--steps", steps, *small, *words)
        words += () if out is None else ("--out", out)
        capsys.readouterr()
        code = run_command(lambda: recipe.main([str(word) for word in words]), "train_waveglow.py")
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def refused(train):
    def call(*words, **options) -> str:
        code, _, errors = train(*words, **options)
        assert code == 2 and "Traceback" not in errors
        lines = [line for line in errors.splitlines() if line.startswith("train_waveglow.py: error: ")]
        assert len(lines) == 1, errors
        return lines[0]

    return call


def files(out) -> dict[str, bytes]:
    """What has to be equal in equal runs."""
    paths = [path for path in out.rglob("*") if path.is_file() and "tfevents" not in path.name]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def test_leaves_what_it_promises(train, tmp_path):
    out = tmp_path / "run"
    code, said, _ = train(out, steps=10)
    assert code == 0
    assert set(files(out)) == {
        "config.json",
        "model.safetensors",
        "checkpoints/step-00000010.safetensors",
        "logs/metrics.csv",
        "samples/clip-11-generated.wav",
        "samples/clip-11-real.wav",
        "samples/clip-11.png",
    }
    (events,) = out.glob("logs/events.out.tfevents.*")
    for name in (b"generated/clip-11", b"mels/clip-11", b"validate/nats_per_sample", b"train/nats_per_sample"):
        assert name in events.read_bytes()
    generated, rate = soundfile.read(out / "samples" / "clip-11-generated.wav")
    assert rate == 22050 and len(generated) == int(0.8 * 22050) // 256 * 256

    *_, figures, where, listen = said.splitlines()
    first, last = map(float, re.search(r"(\S+) -> (\S+) nats per sample", figures).groups())
    assert last > first
    assert str(out) in where and str(out / "samples" / "clip-11-generated.wav") in listen


def test_stores_the_temperature_that_suits_training_clips(train, data, tmp_path, monkeypatch):
    monkeypatch.setitem(WaveGlow.PRESETS, "toy", {**TOY, "temperature": 0.123})
    code, said, _ = train(tmp_path / "run")
    model = WaveGlow.from_pretrained(tmp_path / "run")
    train_clips = split_clips(find_clips(data))[0]
    few = WholeClips(train_clips[:: -(-len(train_clips) // 4)], model.mel_config)
    assert code == 0 and len(few) == 4
    assert model.config.temperature == choose_temperature(model, few) != 0.123
    assert f"temperature {model.config.temperature:g}" in said


def test_what_it_leaves_can_be_used(train, data, tmp_path, capsys):
    train(tmp_path / "run")
    words = ["--model", tmp_path / "run", "--out", tmp_path / "out"]
    assert waveflow([str(word) for word in ("vocode", data / "clip-11.wav", *words)]) == 0
    assert (tmp_path / "out" / "clip-11.wav").exists()
    assert waveflow(["evaluate", "--model", str(tmp_path / "run"), "--data", str(data), "--held-out"]) == 0
    figures = capsys.readouterr().out
    rows = (tmp_path / "run" / "logs" / "metrics.csv").read_text().splitlines()
    logged = [float(row.split(",")[2]) for row in rows if ",validate/nats_per_sample," in row][-1]
    printed = float(re.search(r'"nats_per_sample": (\S+),', figures)[1])
    assert printed == pytest.approx(logged, abs=1e-5)


def test_equal_seeds_give_equal_bytes(train, tmp_path):
    for out, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert train(tmp_path / out, "--seed", seed)[0] == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["model.safetensors"] != files(tmp_path / "c")["model.safetensors"]


def test_a_run_in_two_parts_equals_one(train, tmp_path):
    evaluations = ("--validate-every", 2, "--save-every", 2)
    assert train(tmp_path / "whole", *evaluations)[0] == 0
    assert train(tmp_path / "parts", *evaluations, steps=2)[0] == 0
    code, said, _ = train(tmp_path / "parts", *evaluations, "--resume")
    assert code == 0 and "->" in said
    assert files(tmp_path / "whole") == files(tmp_path / "parts")


def test_memory_invert_trains_alike(train, tmp_path):
    for memory in ("store", "invert"):
        assert train(tmp_path / memory, "--memory", memory)[0] == 0
    stored, rebuilt = (load_file(tmp_path / memory / "model.safetensors") for memory in ("store", "invert"))
    assert stored.keys() == rebuilt.keys()
    assert max(float((stored[name].float() - rebuilt[name].float()).abs().max()) for name in stored) < 1e-4


def test_without_out_every_run_gets_a_folder_of_its_own(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert train(None)[0] == 0
    assert train(None, "--resume", steps=5)[0] == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["waveglow-toy", "waveglow-toy-2"]
    assert (tmp_path / "runs" / "waveglow-toy-2" / "checkpoints" / "step-00000005.safetensors").exists()


def test_flags_can_come_from_a_file(train, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("seed: 3\nlearning_rate: 0.01\n")
    assert train(tmp_path / "a", "--config", tmp_path / "c.yaml")[0] == 0
    assert train(tmp_path / "b", "--seed", 3, "--learning-rate", "1e-2")[0] == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_help_and_configuration_are_printed(train, tmp_path, capsys):
    for flag, expected in (("--help", "--batch-size"), ("--print_config", "batch_size: 2")):
        with pytest.raises(SystemExit) as end:
            train(tmp_path / "run", flag)
        assert end.value.code == 0 and expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--preset", "huge"), "'huge'"),
        (("--data", "/no/such/folder"), "/no/such/folder"),
        (("--data", RECIPE), "got a file"),
        (("--segment", 1001), "multiple of 8"),
        (("--segment", 2**20), "too short"),
        (("--steps", 0), "steps"),
        (("--batch-size", "x"), "--batch-size"),
        (("--learning-rate", 0), "learning_rate"),
        (("--validate-clips", -1), "--validate-clips"),
        (("--threads", 0), "--threads"),
        (("--precision", "16"), "--precision"),
        (("--seed", -1), "seed"),
        (("--no-such-flag",), "--no-such-flag"),
        (("--resume",), "nothing to resume"),
    ],
)
def test_bad_settings_are_refused(refused, tmp_path, words, expected):
    assert expected in refused(tmp_path / "run", *words)
    assert not any(path.is_file() for path in (tmp_path / "run").rglob("*"))


def test_a_folder_without_usable_clips_is_refused(refused, tmp_path):
    (tmp_path / "bad").mkdir()
    for i in range(3):
        (tmp_path / "bad" / f"{i}.wav").write_text("noise")
    assert "no clip is left of 2" in refused(tmp_path / "run", "--data", tmp_path / "bad")


def test_a_run_is_never_written_over(refused, train, tmp_path):
    train(tmp_path / "run")
    before = files(tmp_path / "run")
    message = refused(tmp_path / "run", "--seed", 1)
    assert "already holds a run" in message and "--resume" in message
    assert files(tmp_path / "run") == before


def test_a_run_of_another_model_is_not_resumed(refused, train, tmp_path):
    train(tmp_path / "run")
    before = files(tmp_path / "run")
    assert "another model" in refused(tmp_path / "run", "--preset", "tiny", "--resume", steps=8)
    assert files(tmp_path / "run") == before


def test_a_damaged_checkpoint_is_not_resumed(refused, train, tmp_path):
    train(tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000004.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])
    assert checkpoint.name in refused(tmp_path / "run", "--resume", steps=8)


def test_an_out_that_cannot_be_written_is_refused(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert str(out) in refused(out)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_that_fills_up_leaves_the_last_save_whole(refused, train, tmp_path):
    train(tmp_path / "run")
    names = ("model.safetensors", "config.json", "checkpoints/step-00000004.safetensors")
    before = {name: files(tmp_path / "run")[name] for name in names}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["model.safetensors"]) + 70000, hard))
    try:
        message = refused(tmp_path / "run", "--resume", steps=8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "could not save" in message and "step-00000004 are intact" in message
    after = files(tmp_path / "run")
    assert before["checkpoints/step-00000004.safetensors"] == after["checkpoints/step-00000004.safetensors"]
    assert not any("partial" in name or "tmp" in name for name in after)
    WaveGlow.from_pretrained(tmp_path / "run")
    assert train(tmp_path / "run", "--resume", steps=8)[0] == 0


def script(*words, **options) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


@pytest.mark.slow
def test_as_a_script_with_its_own_preset_and_clips(tmp_path):
    """What ``make train`` does, stopped by Ctrl-C, resumed, and refused where it should be."""
    words = (RECIPE, "--batch-size", 2, "--segment", 4096, "--device", "cpu")
    run = script(*words, "--steps", 1000, cwd=tmp_path)
    for line in run.stderr:
        if "step 0: validation" in line:
            break
    time.sleep(2)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate()
    assert run.returncode == 130 and "--resume" in errors and "Traceback" not in errors
    out = tmp_path / "runs" / "waveglow-tiny"
    done = int(next(out.glob("checkpoints/*")).stem.removeprefix("step-"))
    assert done >= 1

    said, errors = script(*words, "--steps", done + 2, "--resume", cwd=tmp_path).communicate()
    assert "nats per sample" in said and "Traceback" not in errors
    assert {path.name for path in (out / "samples").iterdir()} >= {"wind-02-generated.wav", "wind-02.png"}

    refused = script(*words, "--preset", "none", cwd=tmp_path)
    _, errors = refused.communicate()
    assert refused.returncode == 2 and len(errors.splitlines()) == 1


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(data, tmp_path):
    words = (RECIPE, "--data", data, "--segment", 2048, "--device", "cpu", "--steps", 3)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    together = script(*torchrun, *words, "--batch-size", 1, "--out", tmp_path / "two")
    said, errors = together.communicate()
    assert together.returncode == 0, errors
    assert said.count("nats per sample") == 1
    alone = script(*words, "--batch-size", 2, "--out", tmp_path / "one")
    alone.communicate()
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert max(float((one[name].float() - two[name].float()).abs().max()) for name in one) < 1e-4

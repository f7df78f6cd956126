"""The distillation of a vocoder as its users run it, small."""

import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from waveflow.cli import run_command
from waveflow.models import ParallelWaveNet, WaveGlow, WaveNet

RECIPES = Path(__file__).parents[2] / "recipes" / "ljspeech"
TEACHER = {"layers": 2, "channels": 8, "upsampler": "linear", "context_channels": 8, "whiten": True, "whiten_order": 16}
STUDENT = {"flows": (2, 2), "channels": 8}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setattr(WaveNet, "PRESETS", {**WaveNet.PRESETS, "tiny": TEACHER})
    monkeypatch.setattr(ParallelWaveNet, "PRESETS", {**ParallelWaveNet.PRESETS, "tiny": STUDENT})


@pytest.fixture(scope="session")
def voices(tmp_path_factory):
    """Eleven clips of something like a voice; one is held out."""
    folder = tmp_path_factory.mktemp("voices")
    noise = np.random.default_rng(0)
    t = np.arange(int(0.6 * 22050)) / 22050
    for i in range(11):
        tone = sum(np.sin(2 * math.pi * (110 + 10 * i) * k * t) / k for k in range(1, 12))
        wave = 0.1 * tone * (1 + 0.5 * np.sin(2 * math.pi * 4 * t)) + 0.003 * noise.standard_normal(len(t))
        soundfile.write(folder / f"clip-{i:02}.wav", wave, 22050)
    return folder


@pytest.fixture
def distill(monkeypatch, capsys, voices):
    """Run the recipe in this process: (exit code, standard output, standard error)."""
    monkeypatch.syspath_prepend(RECIPES)
    monkeypatch.delitem(sys.modules, "train_wavenet", raising=False)
    spec = importlib.util.spec_from_file_location("distill_student", RECIPES / "distill_student.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)

    def call(out, *words, steps=4) -> tuple[int, str, str]:
        shared = ("--data", voices, "--segment", 2048, "--device", "cpu", "--steps", steps, "--heard-seconds", 0.4)
        words = (*shared, "--validate-every", 0, *words) + (() if out is None else ("--out", out))
        capsys.readouterr()
        code = run_command(lambda: recipe.main([str(word) for word in words]), "distill_student.py")
        return code, *capsys.readouterr()

    call.recipe = recipe
    return call


@pytest.fixture
def refused(distill, tmp_path):
    def call(*words, **options) -> str:
        code, _, errors = distill(tmp_path / "refused", *words, **options)
        assert code == 2 and "Traceback" not in errors
        lines = [line for line in errors.splitlines() if line.startswith("distill_student.py: error: ")]
        assert len(lines) == 1, errors
        return lines[0]

    return call


def saved(model, folder, std=0.1):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(std * torch.randn(p.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def teacher(tmp_path):
    return saved(WaveNet(**TEACHER), tmp_path / "teacher")


def files(out) -> dict[str, bytes]:
    """What has to be equal in equal runs; the report has speeds in it."""
    paths = [path for path in out.rglob("*") if path.is_file() and "tfevents" not in path.name]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths if path.name != "report.json"}


def test_it_leaves_what_it_promises(distill, teacher, tmp_path):
    out = tmp_path / "run"
    code, said, errors = distill(out, "--teacher", teacher, "--heard-draws", 2, steps=30)
    assert code == 0, errors
    assert set(files(out)) == {
        "config.json",
        "model.safetensors",
        "checkpoints/step-00000030.safetensors",
        "logs/metrics.csv",
        *(f"samples/clip-10{end}" for end in ("-real.wav", "-teacher.wav", "-student.wav", ".png")),
    }
    report = json.loads((out / "logs" / "report.json").read_text())
    first, last = map(float, re.search(r"KL\(student \|\| teacher\): (\S+) -> (\S+) ±", said).groups())
    assert last < first
    assert report["before"]["kl"] == pytest.approx(first, abs=1e-3)
    assert report["student"]["kl"] == pytest.approx(last, abs=1e-3)
    errors_of_f0 = {f"f0_{name}" for name in ("rmse", "fine", "gross", "frame_error")}
    beside = {"mstft", *errors_of_f0}
    assert beside | {f"{name}_to_teacher" for name in beside} | {"voice_kept", "level"} <= set(report["student"])
    assert set(report["student"]) - {"kl", "kl_error", "temperature"} == set(report["teacher"])
    assert report["speedup"] == report["teacher"]["seconds_per_second"] / report["student"]["seconds_per_second"]
    logged = (out / "logs" / "metrics.csv").read_text()
    assert all(f"train/{name}," in logged for name in ("kl", "penalty", "power", "stft", "copies", "level", "offset"))
    student = ParallelWaveNet.from_pretrained(out)
    taught = WaveNet.from_pretrained(teacher)
    assert student.config.whiten and student.mel_config == taught.mel_config
    for ours, theirs in ((student.encoder, taught.encoder), (student.whitening, taught.whitening)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_without_a_teacher_one_is_trained_first(distill, tmp_path):
    code, said, errors = distill(tmp_path / "run", "--teacher-steps", 3, steps=2)
    assert code == 0, errors
    assert "a teacher first" in said and "now the student" in said
    assert WaveNet.from_pretrained(tmp_path / "run" / "teacher").config.whiten
    code, said, _ = distill(tmp_path / "run", "--resume", steps=3)
    assert code == 0 and "a teacher first" not in said


def test_a_run_in_two_parts_equals_one(distill, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(distill.recipe, "ROUND", 3)
    words = ("--teacher", teacher, "--validate-every", 2, "--save-every", 2)
    assert distill(tmp_path / "whole", *words)[0] == 0
    assert distill(tmp_path / "parts", *words, steps=2)[0] == 0
    assert distill(tmp_path / "parts", *words, "--resume")[0] == 0
    assert files(tmp_path / "whole") == files(tmp_path / "parts")


def test_terms_that_are_off_are_not_there(distill, teacher, tmp_path):
    code, _, errors = distill(
        tmp_path / "run", "--teacher", teacher, "--power", 0, "--stft", 0, "--copies", 0, "--contrastive", 0.3, steps=10
    )
    assert code == 0, errors
    logged = (tmp_path / "run" / "logs" / "metrics.csv").read_text()
    assert "train/contrastive," in logged and "train/kl," in logged
    assert not any(f"train/{name}," in logged for name in ("power", "stft", "copies"))


def test_a_teacher_of_raw_waveforms_with_a_mixture_teaches_a_logistic_student(distill, tmp_path, monkeypatch):
    monkeypatch.setitem(ParallelWaveNet.PRESETS, "tiny", {**STUDENT, "base": "logistic"})
    fields = {**TEACHER, "whiten": False, "head": "logistics", "components": 2}
    folder = saved(WaveNet(**fields), tmp_path / "mixture")
    code, _, errors = distill(tmp_path / "run", "--teacher", folder, "--draws", 3)
    assert code == 0, errors
    report = json.loads((tmp_path / "run" / "logs" / "report.json").read_text())
    assert report["floor"] == -7 and report["terms"]["copies"] > 0


def test_a_student_of_other_noise_than_its_teacher_has_no_copies_to_make(distill, teacher, tmp_path, monkeypatch):
    monkeypatch.setitem(ParallelWaveNet.PRESETS, "tiny", {**STUDENT, "base": "logistic"})
    code, _, errors = distill(tmp_path / "run", "--teacher", teacher, "--draws", 3, steps=2)
    assert code == 0, errors
    assert json.loads((tmp_path / "run" / "logs" / "report.json").read_text())["terms"]["copies"] == 0
    code, _, errors = distill(tmp_path / "asked", "--teacher", teacher, "--copies", 0.3, steps=2)
    assert code == 2 and "the teacher's is StandardNormal, the student's StandardLogistic" in errors
    code, said, errors = distill(tmp_path / "asked", "--copies", 0.3, steps=2)  # of a teacher yet to be trained
    assert code == 2 and "the student's StandardLogistic" in errors and "a teacher first" not in said
    assert not (tmp_path / "asked").exists()


def test_a_whispering_student_is_called_by_name(distill, teacher, tmp_path, caplog):
    code, _, _ = distill(tmp_path / "run", "--teacher", teacher, "--learning-rate", 1e-9, steps=1)
    report = json.loads((tmp_path / "run" / "logs" / "report.json").read_text())
    whispers = report["student"]["voice_kept"] < 0.5 * report["teacher"]["voice_kept"]
    assert code == 0 and whispers == ("whispering: of the voiced frames" in caplog.text)


def test_a_diverging_student_is_stopped_with_its_last_good_checkpoint(distill, teacher, tmp_path, monkeypatch):
    out = tmp_path / "run"
    assert distill(out, "--teacher", teacher, steps=2)[0] == 0
    before = files(out)["model.safetensors"]
    watch = distill.recipe.DivergenceWatch
    monkeypatch.setattr(distill.recipe, "DivergenceWatch", lambda where, **_: watch(where, margin=0.05, patience=3))
    code, _, errors = distill(out, "--teacher", teacher, "--learning-rate", 10.0, "--resume", steps=60)
    assert code == 2 and "the student diverges" in errors and str(out) in errors
    assert files(out)["model.safetensors"] == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--teacher", "/no/such/folder"), "/no/such/folder"),
        (("--preset", "huge"), "--preset expects one of clarinet"),
        (("--data", "/no/such/data"), "/no/such/data"),
        (("--kl", 0, "--power", 0, "--stft", 0), "nothing to learn from"),
        (("--penalty", -1), "penalty must be at least 0"),
        (("--heard-seconds", 0), "--heard-seconds"),
        (("--heard-draws", 0), "--heard-draws expects at least 1, got 0"),
        (("--contrastive", 0.3, "--batch-size", 1), "--batch-size of at least 2"),
        (("--segment", 1024), "--segment expects more than 1024 samples"),
        (("--segment", 1024, "--power", 0, "--stft", 0, "--copies", 1), "--segment expects more than 1024 samples"),
        (("--rounds", 0), "--rounds expects at least 1, got 0"),
        (("--copies", -1), "copies must be at least 0"),
        (("--draws", 0), "at least 1 draw"),
        (("--device", "cuda"), "cuda"),
        (("--resume",), "nothing to resume"),
    ],
)
def test_bad_settings_are_refused(refused, teacher, words, expected):
    if words[0] == "--device" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    words = words if "--teacher" in words else ("--teacher", teacher, *words)
    assert expected in refused(*words)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            lambda: WaveGlow(flows=1, channels=4, layers=1, early_every=0),
            "expected an autoregressive teacher, got a WaveGlow",
        ),
        (lambda: WaveNet(**{**TEACHER, "whiten": False}, head="mol"), "no continuous density to take gradients of"),
        (lambda: WaveNet(**TEACHER, speakers=2), "a teacher of one voice"),
        (lambda: WaveNet(**{**TEACHER, "upsampler": "none"}), "an upsampler of mels"),
        (lambda: ParallelWaveNet(**STUDENT), "inverse autoregressive flow"),
    ],
)
def test_what_cannot_teach_is_refused(refused, tmp_path, model, expected):
    model().save_pretrained(tmp_path / "other")
    assert expected in refused("--teacher", tmp_path / "other")
    assert not (tmp_path / "refused").exists()

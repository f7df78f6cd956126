"""The distillation of densities as its users run it, small."""

import csv
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from waveflow.cli import run_command
from waveflow.distillation import estimate_kl
from waveflow.models import IAF, MAF, CouplingFlow, GatedPixelCNN, MaskedConvFlow, load_model

RECIPES = Path(__file__).parents[2] / "recipes" / "density"


@pytest.fixture
def distill(monkeypatch, capsys):
    """Run the recipe in this process: (exit code, standard output, standard error)."""
    monkeypatch.syspath_prepend(RECIPES)
    for name in ("train", "density_pictures"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location("distill_density", RECIPES / "distill.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    for name, draws in {"_VALIDATION_DRAWS": 200, "_REPORT_DRAWS": 5000}.items():
        monkeypatch.setattr(recipe, name, draws)

    def call(out, *words, steps=4) -> tuple[int, str, str]:
        words = ("--steps", steps, "--device", "cpu", "--hidden", "[8]", "--layers", 2, "--draws", 16, *words)
        words += () if {"--pairs", "--anneal"} & set(words) else ("--pairs", 2)
        words += () if out is None else ("--out", out)
        capsys.readouterr()
        code = run_command(lambda: recipe.main([str(word) for word in words]), "distill.py")
        return code, *capsys.readouterr()

    call.recipe = recipe
    return call


@pytest.fixture
def teacher(tmp_path):
    """A small teacher in units of its own, off-centre and of different scales."""
    model = MAF(features=2, layers=2, hidden=(8,))
    generator = torch.Generator().manual_seed(0)
    model.standardise(torch.randn(100, 2, generator=generator) * torch.tensor([1.0, 0.3]) + torch.tensor([0.5, -2.0]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


def files(out) -> dict[str, bytes]:
    """What has to be equal in equal runs."""
    paths = [path for path in out.rglob("*") if path.is_file() and "tfevents" not in path.name]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def test_the_run_without_a_teacher_is_whole(distill, tmp_path):
    code, said, errors = distill(tmp_path / "run", "--teacher-steps", 3)
    assert code == 0, errors
    assert {
        "config.json",
        "model.safetensors",
        "checkpoints/step-00000004.safetensors",
        "logs/metrics.csv",
        "logs/test.json",
        "samples/step-00000004.png",
        "teacher/config.json",
        "teacher/model.safetensors",
        "teacher/logs/test.json",
    } <= set(files(tmp_path / "run"))
    report = json.loads((tmp_path / "run" / "logs" / "test.json").read_text())
    assert report["data"] == "moons" and report["teacher"] == "MAF" and report["steps"] == 4
    own = json.loads((tmp_path / "run" / "teacher" / "logs" / "test.json").read_text())
    assert report["teacher_nats"] == pytest.approx(own["nats"], abs=1e-3)
    assert re.search(r"KL\(student \|\| teacher\): \S+ ± \S+ -> \S+ ± \S+ nats a dimension", said)


@pytest.mark.parametrize("student", ["iaf", "spline"])
def test_learns_its_teacher_in_the_teachers_units(student, distill, teacher, tmp_path):
    words = ("--teacher", teacher, "--data", "moons", "--student", student, "--draws", 128, "--anneal", 20)
    code, _, errors = distill(tmp_path / "run", *words, "--learning-rate", 0.01, "--validate-every", 0, steps=150)
    assert code == 0, errors
    report = json.loads((tmp_path / "run" / "logs" / "test.json").read_text())
    assert report["kl_per_dim"] < 0.02 < report["kl_per_dim_before"]
    model, taught = load_model(tmp_path / "run"), load_model(teacher)
    torch.testing.assert_close(model.bijector[0].std, taught.bijector[0].std)
    found = estimate_kl(model, taught, draws=20_000)
    assert abs(found.per_dim - report["kl_per_dim"]) < 5 * (found.per_dim_error + report["kl_per_dim_standard_error"])
    draws, theirs = model.sample((5000,)), taught.sample((5000,))
    torch.testing.assert_close(draws.mean(0), theirs.mean(0), atol=0.15, rtol=0)


def test_a_student_turned_round_learns_by_pairs_alone(distill, teacher, tmp_path):
    """Without a look at the teacher's density; as many layers as the teacher's are the default."""
    words = ("--teacher", teacher, "--data", "moons", "--hidden", "[16]", "--draws", 128, "--learning-rate", 0.01)
    code, _, errors = distill(tmp_path / "run", *words, "--pairs", 200, "--validate-every", 0, steps=200)
    assert code == 0, errors
    report = json.loads((tmp_path / "run" / "logs" / "test.json").read_text())
    assert report["kl_per_dim"] < 0.02 < report["kl_per_dim_before"]
    assert "nats_per_dim" not in (tmp_path / "run" / "logs" / "metrics.csv").read_text()


def test_pairs_are_of_new_standard_normal_noise_at_each_of_their_steps(distill, teacher, tmp_path, monkeypatch):
    noise, loss = [], distill.recipe.pairs_loss
    monkeypatch.setattr(distill.recipe, "pairs_loss", lambda s, t, z: (noise.append(z), loss(s, t, z))[1])
    words = ("--teacher", teacher, "--data", "moons", "--draws", 1000, "--pairs", 2, "--pairs-weight", 0)
    assert distill(tmp_path / "run", *words, steps=3)[0] == 0
    first, second = noise
    for z in noise:
        torch.testing.assert_close(z.T.cov(), torch.eye(2), atol=0.2, rtol=0)
        torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=0.2, rtol=0)
    assert not torch.equal(first, second)


def test_pairs_weigh_beside_the_divergence_if_they_came_first(distill, teacher, tmp_path, monkeypatch):
    pairs, kl, seen = distill.recipe.pairs_loss, distill.recipe.reverse_kl, []

    def keep(name, call):
        def kept(*args, **options):
            found = call(*args, **options)
            seen.append((name, found.mean().item()))
            return found

        return kept

    monkeypatch.setattr(distill.recipe, "pairs_loss", keep("pairs", pairs))
    monkeypatch.setattr(distill.recipe, "reverse_kl", keep("kl", kl))
    words = ("--teacher", teacher, "--data", "moons", "--draws", 50, "--pairs-weight", 2.5, "--validate-every", 0)
    assert distill(tmp_path / "run", *words, "--pairs", 4, steps=10)[0] == 0
    assert [name for name, _ in seen] == ["pairs"] * 4 + ["pairs", "kl"] * 6
    with (tmp_path / "run" / "logs" / "metrics.csv").open(newline="") as file:
        losses = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "train/loss"]
    total = sum(value for _, value in seen[:4]) + sum(v * (2.5 if name == "pairs" else 1) for name, v in seen[4:])
    assert losses == [pytest.approx(total / 10, rel=1e-4)]
    seen.clear()
    splines = ("--teacher", teacher, "--data", "moons", "--student", "spline", "--draws", 50, "--validate-every", 0)
    assert distill(tmp_path / "splines", *splines, "--pairs", 1, steps=2)[0] == 0
    assert [name for name, _ in seen] == ["pairs", "kl"]  # of draws alone: only first, unless it is asked for
    seen.clear()
    assert distill(tmp_path / "other", *words, "--anneal", 1, "--pairs", 0, steps=2)[0] == 0
    assert [name for name, _ in seen] == ["kl", "kl"]


def test_a_student_is_as_deep_as_its_teacher_unless_told(distill, tmp_path):
    MAF(features=2, layers=3, hidden=(8,)).save_pretrained(tmp_path / "teacher")
    for layers, expected in (("null", 3), (1, 1)):
        words = ("--teacher", tmp_path / "teacher", "--data", "moons", "--layers", layers)
        assert distill(tmp_path / f"run-{expected}", *words)[0] == 0
        assert load_model(tmp_path / f"run-{expected}").config.layers == expected


def test_equal_seeds_give_equal_bytes_and_two_parts_one_whole(distill, teacher, tmp_path):
    words = ("--teacher", teacher, "--data", "moons", "--validate-every", 2, "--save-every", 2, "--pairs", 3)
    assert distill(tmp_path / "whole", *words)[0] == 0
    assert distill(tmp_path / "again", *words)[0] == 0
    assert distill(tmp_path / "parts", *words, steps=2)[0] == 0
    assert distill(tmp_path / "parts", *words, "--resume")[0] == 0
    assert files(tmp_path / "whole") == files(tmp_path / "again")
    assert files(tmp_path / "whole") == files(tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--resume",)])
def test_a_run_stopped_while_its_teacher_was_trained_goes_on(words, distill, tmp_path):
    out = tmp_path / "run"
    assert distill(out, "--teacher-steps", 4)[0] == 0
    stopped = tmp_path / "stopped"
    sys.modules["train"].main(
        [
            "--data=moons",
            "--steps=2",
            f"--out={stopped / 'teacher'}",
            "--device=cpu",
            "--seed=0",
            "--threads=1",
            "--activation=silu",
        ]
    )
    (stopped / "teacher" / "logs" / "test.json").unlink()
    code, _, errors = distill(stopped, "--teacher-steps", 4, *words)
    assert code == 0, errors
    assert "steps 2 to 4" in errors
    assert files(out)["teacher/model.safetensors"] == files(stopped)["teacher/model.safetensors"]
    assert files(out)["model.safetensors"] == files(stopped)["model.safetensors"]


def test_the_teachers_run_says_what_it_was_trained_on(distill, teacher, tmp_path):
    (teacher / "logs").mkdir()
    (teacher / "logs" / "test.json").write_text(json.dumps({"data": "spirals"}))
    assert distill(tmp_path / "run", "--teacher", teacher)[0] == 0
    assert json.loads((tmp_path / "run" / "logs" / "test.json").read_text())["data"] == "spirals"


def test_more_dimensions_are_drawn_in_pairs(distill, tmp_path):
    np.savez(tmp_path / "t.npz", x=np.random.default_rng(0).normal(size=(400, 3)))
    MAF(features=3, layers=1, hidden=(8,)).save_pretrained(tmp_path / "teacher")
    code, _, errors = distill(tmp_path / "run", "--teacher", tmp_path / "teacher", "--data", tmp_path / "t.npz")
    assert code == 0, errors
    assert "samples/step-00000004.png" in files(tmp_path / "run")


def test_a_diverging_student_is_stopped_with_its_last_checkpoint(distill, teacher, tmp_path, monkeypatch):
    watch = distill.recipe.DivergenceWatch
    monkeypatch.setattr(distill.recipe, "DivergenceWatch", lambda out, **_: watch(out, margin=0.5, patience=3))
    words = ("--teacher", teacher, "--data", "moons", "--learning-rate", 3.0, "--pairs", 0)
    code, _, errors = distill(tmp_path / "run", *words, "--validate-every", 0, "--save-every", 1, steps=200)
    assert code == 2 and "the student diverges: for 3 steps in a row" in errors.splitlines()[-1]
    assert str(tmp_path / "run") in errors.splitlines()[-1]
    assert load_model(tmp_path / "run").sample((5,)).isfinite().all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--teacher", "{iaf}", "--data", "moons"], "the IAF is an inverse autoregressive flow"),
        (["--teacher", "{coupling}", "--data", "moons"], "expected an autoregressive teacher, got a CouplingFlow"),
        (["--teacher", "{pixels}", "--data", "moons"], "holds a GatedPixelCNN, which has no continuous density"),
        (["--teacher", "{images}", "--data", "moons"], "--teacher expects a flow of vectors, got a MaskedConvFlow"),
        (["--teacher", "{three}", "--data", "moons"], "--teacher is of 3 columns, moons has 2"),
        (["--teacher", "{context}", "--data", "moons"], "the same context, but the teacher expects one of 1 numbers"),
        (["--teacher", "nowhere", "--data", "moons"], "nowhere: no such folder"),
        (["--teacher", "{three}"], "--data is needed: "),
        (["--data", "moon"], "'moon' is neither a file nor one of moons, rings,"),
        (["--draws", 0], "--draws expects at least 1, got 0"),
        (["--layers", 0], "IAF expects layers of at least 1, got 0"),
        (["--anneal", -1], "--anneal expects at least 0, got -1"),
        (["--pairs", -1], "--pairs expects at least 0, got -1"),
        (["--pairs-weight", -1], "--pairs-weight expects at least 0, got -1.0"),
        (["--pairs", 3, "--anneal", 4], "--pairs and --anneal are two ways to begin, got 3 and 4 steps"),
        (["--steps", 0], "steps must be at least 1, got 0"),
        (["--resume"], "nothing to resume"),
        (["--device", "cuda"], "cuda"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, message, distill, tmp_path):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    small = {"features": 2, "layers": 1, "hidden": (4,)}
    models = {
        "iaf": IAF(**small),
        "coupling": CouplingFlow(**small),
        "pixels": GatedPixelCNN.from_preset("digits", layers=1),
        "images": MaskedConvFlow.from_preset("digits", layers=1),
        "three": MAF(**{**small, "features": 3}),
        "context": MAF(**small, context=1),
    }
    for name, model in models.items():
        if any(f"{{{name}}}" == word for word in words):
            model.save_pretrained(tmp_path / name)
    paths = {name: tmp_path / name for name in models}
    code, _, errors = distill(tmp_path / "run", *[str(word).format(**paths) for word in words])
    (line,) = errors.splitlines()
    assert code == 2 and line.startswith("distill.py: error: ") and message in line
    assert not (tmp_path / "run").exists()

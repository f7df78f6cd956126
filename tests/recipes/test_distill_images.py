"""The distillation of images as its users run it, small."""

import csv
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from waveflow.cli import run_command
from waveflow.data import Images
from waveflow.models import Glow, MaskedConvFlow, MaskedConvIAF, load_model

RECIPE = Path(__file__).parents[2] / "recipes" / "mnist" / "distill.py"


@pytest.fixture
def distill(capsys, monkeypatch):
    """Run the recipe in this process: (exit code, standard output, standard error)."""
    spec = importlib.util.spec_from_file_location("distill_images", RECIPE)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    few = {"_VALIDATION_DRAWS": 40, "_REPORT_DRAWS": 200, "_CLASSED_DRAWS": 40, "_TIMED_DRAWS": 4}
    for name, draws in few.items():
        monkeypatch.setattr(recipe, name, draws)

    def call(out, *words, steps=3) -> tuple[int, str, str]:
        words = ("--steps", steps, "--device", "cpu", "--batch-size", 8, "--samples", 6, "--test-images", 10, *words)
        words += () if "--pairs" in words else ("--pairs", 1)
        words += () if out is None else ("--out", out)
        capsys.readouterr()
        code = run_command(lambda: recipe.main([str(word) for word in words]), "distill.py")
        return code, *capsys.readouterr()

    call.recipe = recipe
    return call


@pytest.fixture
def teacher(tmp_path):
    """A small teacher of digits that has not learnt, but leans somewhere."""

    def make(**fields):
        torch.manual_seed(0)
        model = MaskedConvFlow.from_preset("digits", hidden=8, layers=1, **fields)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        model.save_pretrained(tmp_path / "teacher")
        return tmp_path / "teacher"

    return make


def files(out) -> dict[str, bytes]:
    """What has to be equal in equal runs."""
    paths = [path for path in out.rglob("*") if path.is_file() and "tfevents" not in path.name]
    clocks = ("speed.json", "minutes.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths if path.name not in clocks}


def test_the_run_without_a_teacher_is_whole(distill, tmp_path):
    code, said, errors = distill(tmp_path / "run", "--teacher-steps", 2, "--validate-images", 10)
    assert code == 0, errors
    assert {
        "config.json",
        "model.safetensors",
        "logs/test.json",
        "samples/step-00000003.png",
        "teacher/model.safetensors",
        "teacher/logs/test.json",
    } <= set(files(tmp_path / "run"))
    student, taught = load_model(tmp_path / "run"), load_model(tmp_path / "run" / "teacher")
    assert type(student) is MaskedConvIAF and type(taught) is MaskedConvFlow
    assert student.config.hidden == taught.config.hidden
    assert (student.config.first_kernel, taught.config.first_kernel) == (15, 5)  # 8x8 images are seen whole
    report = json.loads((tmp_path / "run" / "logs" / "test.json").read_text())
    assert report["test_images"] == 10 and 0 < report["teacher_bits_per_dim"] < 8
    assert report["class_draws"] == 40 and 0 <= report["class_distance"] <= 1
    assert sum(report["teacher_class_shares"]) == pytest.approx(1) == sum(report["student_class_shares"])
    speeds = json.loads((tmp_path / "run" / "logs" / "speed.json").read_text())
    assert set(speeds) == {"teacher_images_per_second", "student_images_per_second"}
    assert re.search(r"student: \S+ ± \S+ bits/dim on 10 test images, \S+ draws a second", said)


@pytest.mark.parametrize("classes", [0, 10])
def test_learns_its_teacher(classes, distill, teacher, tmp_path):
    words = ("--teacher", teacher(classes=classes), "--learning-rate", 0.005, "--validate-every", 0, "--pairs", 30)
    words += ("--conditional",) if classes else ()
    code, _, errors = distill(tmp_path / "run", *words, steps=60)
    assert code == 0, errors
    report = json.loads((tmp_path / "run" / "logs" / "test.json").read_text())
    assert report["kl_per_dim"] < 0.25 * report["kl_per_dim_before"]
    assert load_model(tmp_path / "run").config.classes == classes


def metrics(out) -> list[dict[str, str]]:
    with (out / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_learns_by_pairs_alone(distill, teacher, tmp_path):
    """Without a look at the teacher's density."""
    words = ("--teacher", teacher(), "--learning-rate", 0.005, "--validate-every", 0, "--pairs", 60)
    assert distill(tmp_path / "run", *words, steps=60)[0] == 0
    report = json.loads((tmp_path / "run" / "logs" / "test.json").read_text())
    assert report["kl_per_dim"] < 0.25 * report["kl_per_dim_before"]
    assert "train/pairs_per_dim" in {row["name"] for row in metrics(tmp_path / "run")}
    assert "train/kl_per_dim" not in {row["name"] for row in metrics(tmp_path / "run")}


@pytest.mark.parametrize(("weight", "lessons"), [(0, 2), (0.5, 4)])
def test_pairs_come_first_and_then_beside_the_divergence_if_they_weigh(
    weight, lessons, distill, teacher, tmp_path, monkeypatch
):
    noise, scored, recipe = [], [], distill.recipe
    pairs, kl = recipe.pairs_loss, recipe.reverse_kl
    monkeypatch.setattr(recipe, "pairs_loss", lambda s, t, z, c: (noise.append(z), pairs(s, t, z, c))[1])
    monkeypatch.setattr(recipe, "reverse_kl", lambda s, t, c, n: (scored.append(n), kl(s, t, c, n))[1])
    words = ("--teacher", teacher(), "--pairs", 2, "--pairs-weight", weight, "--batch-size", 100)
    assert distill(tmp_path / "run", *words, steps=4)[0] == 0
    assert len(noise) == lessons and scored == [100, 100]
    assert not torch.equal(*noise[:2])
    for z in noise:
        assert z.shape == (100, 1, 8, 8)
        assert z.mean().item() == pytest.approx(0, abs=0.05) and z.std().item() == pytest.approx(1, abs=0.05)


def test_classes_are_told_by_the_nearest_image(distill):
    images = torch.tensor([0, 10, 100, 110], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    labelled = Images(images, torch.tensor([0, 2, 1, 1]))
    draws = torch.tensor([4, 6, 7, 90, 120, 200, 255, 0], dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 1, 2, 2)
    assert distill.recipe.class_shares(draws, labelled).tolist() == [2 / 8, 4 / 8, 2 / 8]


def test_two_parts_equal_one_whole(distill, teacher, tmp_path):
    """The first part ends while the student is taught by pairs."""
    words = ("--teacher", teacher(), "--validate-every", 2, "--save-every", 2, "--pairs", 3)
    assert distill(tmp_path / "whole", *words, steps=4)[0] == 0
    assert distill(tmp_path / "parts", *words, steps=2)[0] == 0
    assert distill(tmp_path / "parts", *words, "--resume", steps=4)[0] == 0
    assert files(tmp_path / "whole") == files(tmp_path / "parts")


def test_the_student_may_be_of_another_size(distill, teacher, tmp_path):
    code, _, errors = distill(tmp_path / "run", "--teacher", teacher(), "--fields.hidden", 4, "--fields.steps", 1)
    assert code == 0, errors
    config = load_model(tmp_path / "run").config
    assert (config.hidden, config.steps, config.layers) == (4, 1, 1)


def test_both_are_drawn_side_by_side(distill):
    left, right = torch.zeros(12, 1, 2, 2, dtype=torch.uint8), torch.ones(12, 1, 2, 2, dtype=torch.uint8)
    both, columns = distill.recipe.side_by_side(left, right, values=17, columns=4)
    assert columns == 9 and both.shape == (27, 1, 2, 2)
    assert both[:, 0, 0, 0].reshape(3, 9).tolist() == [[0] * 4 + [16] + [1] * 4] * 3
    assert distill.recipe.side_by_side(left[:3], right[:3], values=17)[1] == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--teacher", "{student}"], "the MaskedConvIAF is an inverse autoregressive flow"),
        (["--teacher", "{glow}"], "expected an autoregressive teacher, got a Glow"),
        (["--teacher", "{small}"], "--teacher is of 1x4x4 images of 17 values with 0 classes, digits of 1x8x8"),
        (
            ["--teacher", "{teacher}", "--conditional"],
            "17 values with 0 classes, digits of 1x8x8 images of 17 values with",
        ),
        (["--teacher", "{teacher}", "--fields.height", 4], "--fields expects none of channels, height,"),
        (["--teacher", "{teacher}", "--fields.hidden", 0], "expects hidden of at least 1, got 0"),
        (["--teacher", "{teacher}", "--fields.width_of", 0], "MaskedConvIAF has no field width_of"),
        (["--teacher", "nowhere"], "nowhere: no such folder"),
        (["--teacher", "{empty}"], "no checkpoint here"),
        (["--preset", "huge"], "--preset expects one of digits, mnist, got 'huge'"),
        (["--batch-size", 0], "--batch-size expects at least 1, got 0"),
        (["--pairs", -1], "--pairs expects at least 0, got -1"),
        (["--pairs-weight", -0.5], "--pairs-weight expects at least 0, got -0.5"),
        (["--teacher-steps", 0], "--teacher-steps expects at least 1, got 0"),
        (["--data", "nowhere"], "nowhere"),
        (["--resume"], "nothing to resume"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, message, distill, tmp_path):
    (tmp_path / "empty").mkdir()
    models = {
        "student": lambda: MaskedConvIAF.from_preset("digits", layers=1),
        "glow": lambda: Glow.from_preset("digits"),
        "small": lambda: MaskedConvFlow(height=4, width=4, values=17, hidden=4, layers=1),
        "teacher": lambda: MaskedConvFlow.from_preset("digits", hidden=4, layers=1),
    }
    for name, make in models.items():
        if any(f"{{{name}}}" == word for word in words):
            make().save_pretrained(tmp_path / name)
    paths = {name: tmp_path / name for name in (*models, "empty")}
    code, _, errors = distill(tmp_path / "run", *[str(word).format(**paths) for word in words])
    (line,) = errors.splitlines()
    assert code == 2 and line.startswith("distill.py: error: ") and message in line
    assert not (tmp_path / "run").exists()


def test_a_folder_of_images_teaches_too(distill, tmp_path):
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(tmp_path / "images" / f"{i}.png")
    MaskedConvFlow(height=4, width=4, hidden=4, layers=1, first_kernel=3).save_pretrained(tmp_path / "teacher")
    words = ("--data", tmp_path / "images", "--size", 4, "--channels", 1, "--teacher", tmp_path / "teacher")
    code, _, errors = distill(tmp_path / "run", *words)
    assert code == 0, errors
    assert "class_distance" not in json.loads((tmp_path / "run" / "logs" / "test.json").read_text())
    assert "class_distance" not in json.loads((tmp_path / "run" / "logs" / "test.json").read_text())

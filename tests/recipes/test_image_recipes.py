"""The image recipes as their users run them, small."""

import csv
import gzip
import importlib.util
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from waveflow.cli import main as waveflow
from waveflow.cli import run_command
from waveflow.data import load_images
from waveflow.models import Glow, load_model

RECIPES = Path(__file__).parents[2] / "recipes"
DATA = Path(__file__).parents[3] / "shared" / "data"

GLOW = ("--fields.steps", 1, "--fields.hidden", 4)
NICE = ("--fields", "{layers: 2, hidden: [8]}")
REALNVP = ("--fields", "{blocks: 1, hidden: 2, levels: 1}")
PIXELCNN = ("--fields", "{hidden: 6, layers: 1, first_kernel: 3}")
SMALL = {
    "mnist/train_nice.py": NICE,
    "mnist/train_realnvp.py": REALNVP,
    "mnist/train_glow.py": GLOW,
    "mnist/train_pixelcnn.py": PIXELCNN,
    "cifar10/train_realnvp.py": (*REALNVP, "--size", 8),
    "cifar10/train_glow.py": (*GLOW, "--size", 8),
    "cifar10/train_pixelcnn.py": (*PIXELCNN, "--size", 8),
    "faces/train_glow.py": (*GLOW, "--size", 16),
}
CLOCKED = {"logs/minutes.json", "logs/curve.csv", "logs/curve.png"}


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a recipe in this process: (exit code, standard output, standard error)."""

    def call(name, out, *words, steps=4) -> tuple[int, str, str]:
        monkeypatch.syspath_prepend(RECIPES / Path(name).parent)
        spec = importlib.util.spec_from_file_location(Path(name).stem, RECIPES / name)
        recipe = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(recipe)
        if "train" in name:
            words = (*SMALL[name], "--steps", steps, "--batch-size", 8, "--samples", 9, "--test-images", 20, *words)
            words = ("--validate-images", 10, "--device", "cpu", *words)
        words += () if out is None else ("--out", out)
        capsys.readouterr()
        code = run_command(lambda: recipe.main([str(word) for word in words]), Path(name).name)
        return code, *capsys.readouterr()

    return call


def files(out, clocked=False) -> dict[str, bytes]:
    """What has to be equal in equal runs."""
    paths = [path for path in out.rglob("*") if path.is_file() and "tfevents" not in path.name]
    names = {path.relative_to(out).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if clocked or name not in CLOCKED}


def figures(out) -> dict:
    return json.loads((out / "logs" / "test.json").read_text())


@pytest.mark.parametrize("name", SMALL)
def test_every_recipe_leaves_what_it_promises(name, run, tmp_path):
    out = tmp_path / "run"
    code, said, errors = run(name, out)
    assert code == 0, errors
    pixelcnn = "pixelcnn" in name
    assert set(files(out, clocked=True)) == {
        "config.json",
        "model.safetensors",
        "best/best.json",
        "best/config.json",
        "best/model.safetensors",
        "checkpoints/step-00000004.safetensors",
        "logs/metrics.csv",
        "logs/data.json",
        "logs/minutes.json",
        "logs/curve.csv",
        "logs/curve.png",
        "logs/test.json",
        "samples/step-00000004.png",
        "samples/samples.png",
        "samples/temperatures.png",
        f"samples/{'completions' if pixelcnn else 'interpolations'}.png",
    }
    found = figures(out)
    assert found["test_images"] == 20 and found["exact"] == pixelcnn
    assert found["steps"] == found["tested_step"] == 4 and found["seed"] == 0
    assert found["dequantisation"] == (None if pixelcnn else "uniform")
    kind = "exact" if pixelcnn else "an upper bound"
    line = re.search(r"test: (\S+) ± (\S+) bits/dim on 20 of \S+ images \((.*)\)", said)
    assert float(line[1]) == pytest.approx(found["bits_per_dim"], abs=1e-4) and kind in line[3]
    assert str(out) in said.splitlines()[-1]
    model = load_model(out)
    assert model.image_shape == ((1, 8, 8) if "mnist" in name else (3, *2 * [16 if "faces" in name else 8]))
    assert model.config.classes == 0  # labels are for --conditional only
    dims = math.prod(model.image_shape)
    assert found["negative_log_likelihood_nats"] == pytest.approx(found["bits_per_dim"] * dims * math.log(2))


def test_reports_the_exact_likelihood_of_the_whole_test_set(run, tmp_path):
    code, said, _ = run("mnist/train_pixelcnn.py", tmp_path / "run", "--test-images", 0, "--conditional", steps=30)
    assert code == 0 and "bits/dim on all 179 images (exact)" in said
    digits, model = load_images("digits").test, load_model(tmp_path / "run")
    bits = -model.log_prob(digits.images, digits.labels).double() / (64 * math.log(2))
    found = figures(tmp_path / "run")
    assert found["bits_per_dim"] == pytest.approx(bits.mean().item(), abs=1e-5) and bits.mean() < math.log2(17) - 0.01
    assert found["standard_error"] == pytest.approx(bits.std().item() / math.sqrt(179), rel=1e-3)


def test_flows_learn_and_the_samples_are_those_of_the_model(run, tmp_path):
    words = ("--fields.hidden", 16, "--fields.steps", 2, "--batch-size", 32, "--learning-rate", 0.01)
    assert run("mnist/train_glow.py", tmp_path / "run", *words, steps=40)[0] == 0
    rows = (tmp_path / "run" / "logs" / "metrics.csv").read_text().splitlines()
    first, *_, last = (float(row.split(",")[2]) for row in rows if ",validate/bits_per_dim," in row)
    assert last < first - 0.3
    model = load_model(tmp_path / "run")
    images = model.sample(9, 0.7, generator=torch.Generator().manual_seed(0))  # the recipe's temperature and seed
    picture = np.asarray(Image.open(tmp_path / "run" / "samples" / "samples.png"))
    zoom = 7
    corner = picture[: 8 * zoom : zoom, : 8 * zoom : zoom]
    assert np.array_equal(corner, np.round(images[0, 0].numpy() * (255 / 16)).astype(np.uint8))
    assert waveflow(["sample", str(tmp_path / "run"), "--n", "4", "--out", str(tmp_path / "grid.png")]) == 0


def test_binary_images_are_measured_in_nats_too(run, tmp_path):
    code, said, _ = run("mnist/train_pixelcnn.py", tmp_path / "run", "--binary")
    assert code == 0 and load_model(tmp_path / "run").config.head == "bernoulli"
    nats = re.search(r"test: (\S+) ± \S+ nats an image; binary test images are one draw of this project's own", said)
    assert float(nats[1]) == pytest.approx(figures(tmp_path / "run")["negative_log_likelihood_nats"], abs=0.01)
    assert "validate/negative_log_likelihood" in (tmp_path / "run" / "logs" / "metrics.csv").read_text()


@pytest.mark.parametrize("name", ["mnist/train_nice.py", "mnist/train_realnvp.py", "mnist/train_glow.py"])
def test_class_conditional_flows(name, run, tmp_path):
    assert run(name, tmp_path / "run", "--conditional")[0] == 0
    model = load_model(tmp_path / "run")
    assert model.config.classes == 10 and model.sample(3, label=7).shape == (3, 1, 8, 8)


def test_options_of_the_models(run, tmp_path):
    words = ("--model", "plain", "--head", "logistics", "--fields.components", 2)
    assert run("mnist/train_pixelcnn.py", tmp_path / "a", *words)[0] == 0
    model = load_model(tmp_path / "a")
    assert (type(model).__name__, model.config.head, model.config.components) == ("PixelCNN", "logistics", 2)
    words = ("--memory", "invert", "--dequantisation", "variational", "--fields.dequantisation_hidden", 2)
    assert run("mnist/train_glow.py", tmp_path / "b", *words)[0] == 0
    config = load_model(tmp_path / "b").config
    assert (config.memory, config.dequantisation, config.steps, config.hidden) == ("invert", "variational", 1, 4)


def test_memory_invert_trains_alike(run, tmp_path):
    for memory in ("store", "invert"):
        assert run("mnist/train_glow.py", tmp_path / memory, "--memory", memory)[0] == 0
    stored, rebuilt = (load_file(tmp_path / memory / "model.safetensors") for memory in ("store", "invert"))
    assert stored.keys() == rebuilt.keys()
    assert max(float((stored[name].float() - rebuilt[name].float()).abs().max()) for name in stored) < 1e-4


def test_the_penalty_acts_on_the_scales(run, tmp_path):
    for penalty in (0, 10):
        words = ("--penalty", penalty, "--learning-rate", 0.01)
        assert run("mnist/train_realnvp.py", tmp_path / str(penalty), *words, steps=20)[0] == 0
    free, bound = (load_file(tmp_path / penalty / "model.safetensors") for penalty in ("0", "10"))
    scales = [name for name in free if name.endswith("tanh_scale")]
    assert scales and all((bound[name].abs() < free[name].abs()).all() for name in scales)


def test_equal_seeds_give_equal_bytes(run, tmp_path):
    for out, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert run("mnist/train_glow.py", tmp_path / out, "--seed", seed)[0] == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["model.safetensors"] != files(tmp_path / "c")["model.safetensors"]


def test_a_run_in_two_parts_equals_one(run, tmp_path):
    name = "mnist/train_glow.py"
    words = ("--flips", "--validate-every", 10, "--save-every", 10)
    assert run(name, tmp_path / "whole", *words, steps=20)[0] == 0
    assert run(name, tmp_path / "parts", *words, steps=10)[0] == 0
    before = json.loads((tmp_path / "parts" / "logs" / "minutes.json").read_text())
    assert run(name, tmp_path / "parts", *words, "--resume", steps=20)[0] == 0
    assert files(tmp_path / "whole") == files(tmp_path / "parts")
    minutes = json.loads((tmp_path / "parts" / "logs" / "minutes.json").read_text())
    assert minutes["total"] > before["total"] > 0 and minutes["at"]["20"] > minutes["at"]["10"] == before["at"]["10"]


def test_what_is_tested_is_the_best_by_validation(run, tmp_path):
    name, out = "mnist/train_pixelcnn.py", tmp_path / "run"
    words = ("--validate-every", 10, "--validate-images", 0, "--test-images", 0)
    assert run(name, out, *words, "--learning-rate", 0.01, steps=20)[0] == 0
    assert run(name, out, *words, "--learning-rate", 10.0, "--resume", steps=40)[0] == 0  # nothing good comes of that
    with open(out / "logs" / "curve.csv", newline="") as file:
        curve = {int(row["step"]): float(row["validation"]) for row in csv.DictReader(file)}
    assert list(curve) == [0, 10, 20, 30, 40]
    best = min((10, 20, 30, 40), key=curve.get)
    record, found = json.loads((out / "best" / "best.json").read_text()), figures(out)
    assert best != 40 and record["step"] == found["tested_step"] == best and found["steps"] == 40
    digits, model, last = load_images("digits"), load_model(out / "best"), load_model(out)
    assert model.bits_per_dim(digits.validation.images).mean().item() == pytest.approx(curve[best], abs=1e-3)
    assert last.bits_per_dim(digits.validation.images).mean().item() == pytest.approx(curve[40], abs=1e-3)
    assert model.bits_per_dim(digits.test.images).mean().item() == pytest.approx(found["bits_per_dim"], abs=1e-5)


def test_a_best_model_outlives_a_resume_unless_other_images_judge(run, tmp_path):
    name, out = "mnist/train_nice.py", tmp_path / "run"
    assert run(name, out, "--learning-rate", 0.01, steps=20)[0] == 0
    weights = (out / "best" / "model.safetensors").read_bytes()
    assert run(name, out, "--learning-rate", 10.0, "--resume", steps=21)[0] == 0
    assert figures(out)["tested_step"] == 20 and (out / "best" / "model.safetensors").read_bytes() == weights
    assert run(name, out, "--learning-rate", 10.0, "--validate-images", 9, "--resume", steps=22)[0] == 0
    assert figures(out)["tested_step"] == 22 and (out / "best" / "model.safetensors").read_bytes() != weights


def test_other_data_at_resume_is_said(run, tmp_path):
    name, out = "mnist/train_realnvp.py", tmp_path / "run"
    assert run(name, out, steps=1)[0] == 0
    code, said, _ = run(name, out, "--resume", steps=2)
    assert code == 0 and "differ" not in said
    code, said, _ = run(name, out, "--resume", "--flips", "--penalty", 1, steps=3)
    assert (
        code == 0
        and "data that differ from those before: flips was False, now True; penalty was 5e-05, now 1.0" in said
    )
    code, said, _ = run(name, out, "--resume", "--flips", "--penalty", 1, steps=4)
    assert code == 0 and "differ" not in said
    code, _, errors = run(name, out, "--resume", "--conditional", steps=5)
    assert code == 2 and "of another model" in errors
    code, said, _ = run(name, out, "--resume", "--flips", "--penalty", 1, steps=5)
    assert code == 0 and "differ" not in said  # nothing was learnt from the other data
    images = load_images("digits")
    fewer = replace(images, train=images.train.take(slice(0, 100)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("waveflow.training.image_data.load_images", lambda *args, **options: fewer)
        code, said, _ = run(name, out, "--resume", "--flips", "--penalty", 1, steps=6)
    assert code == 0 and "training_images was 1457, now 100" in said


def test_damaged_records_do_not_stop_a_run(run, tmp_path, caplog):
    name, out = "mnist/train_nice.py", tmp_path / "run"
    assert run(name, out, steps=1)[0] == 0
    for record in ("data.json", "minutes.json"):
        (out / "logs" / record).write_text("{")
    assert run(name, out, "--resume", steps=2)[0] == 0
    assert "data.json is damaged" in caplog.text and "minutes.json is damaged" in caplog.text
    assert json.loads((out / "logs" / "data.json").read_text())["training_images"] == 1457


def test_a_run_is_never_written_over(run, tmp_path):
    run("mnist/train_nice.py", tmp_path / "run")
    before = files(tmp_path / "run", clocked=True)
    code, _, errors = run("mnist/train_nice.py", tmp_path / "run", "--seed", 1)
    assert code == 2 and "already holds a run" in errors
    assert files(tmp_path / "run", clocked=True) == before


def test_without_out_runs_are_named_by_model_and_data(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run("mnist/train_nice.py", None)[0] == 0
    assert run("mnist/train_pixelcnn.py", None, "--binary")[0] == 0
    names = sorted(path.name for path in Path("runs").iterdir())
    assert names == ["nice-digits", "nice-digits-2", "pixelcnn-gated-binary-digits"]


def test_a_folder_of_images(run, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(40):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path / "pictures" / f"{i:02}.png")
    (tmp_path / "pictures" / "broken.png").write_text("no picture")
    words = ("--data", tmp_path / "pictures", "--size", 8, "--channels", 1, "--preset", "cifar10", *GLOW)
    code, said, _ = run("cifar10/train_glow.py", tmp_path / "run", *words)
    assert code == 0 and "1x8x8, 256 values" in said
    assert load_model(tmp_path / "run").config.hidden == 4


def test_flags_of_a_base_class_are_explained(run, capsys):
    with pytest.raises(SystemExit) as end:
        run("mnist/train_glow.py", None, "--help")
    said = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0 and "the paper shows them at 0.7" in said
    assert "Pixels are 0 or 1, drawn with their intensity" in said and "less memory, more work" in said


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("mnist/train_glow.py", ("--data", "digit"), "'digit' is neither a folder nor one of digits, photographs,"),
        ("mnist/train_glow.py", ("--data", "mnist"), "mnist expects --path"),
        ("mnist/train_glow.py", ("--data", "mnist", "--path", "nowhere"), "nowhere: expected MNIST's"),
        ("mnist/train_glow.py", ("--path", "nowhere"), "--path belongs to"),
        ("mnist/train_glow.py", ("--download",), "--download belongs to mnist and cifar10"),
        ("mnist/train_glow.py", ("--size", 16), "--size belongs to"),
        ("mnist/train_glow.py", ("--preset", "huge"), "--preset expects one of cifar10, mnist,"),
        ("mnist/train_glow.py", ("--fields.width", 5), "--fields expects none of channels, height, width"),
        ("mnist/train_glow.py", ("--fields.hiden", 5), "Glow has no field hiden; its fields are"),
        ("mnist/train_glow.py", ("--fields.levels", 4), "divisible by 16 for 4 levels, got 8x8"),
        ("mnist/train_glow.py", ("--fields", "3"), "--fields"),
        ("mnist/train_glow.py", ("--fields.hidden", 0), "Glow expects hidden of at least 1, got 0"),
        ("mnist/train_glow.py", ("--fields.hidden", "x"), "Glow expects hidden as a whole number, got 'x'"),
        (
            "mnist/train_nice.py",
            ("--fields.hidden", '["a"]'),
            "NICE expects hidden as a list of whole numbers, got",
        ),
        ("mnist/train_glow.py", ("--steps", 0), "steps must be at least 1, got 0"),
        ("mnist/train_glow.py", ("--samples", 0), "--samples expects at least 1, got 0"),
        ("mnist/train_glow.py", ("--test-images", -1), "--test-images expects at least 0, got -1"),
        ("mnist/train_glow.py", ("--temperature", -1), "--temperature expects at least 0, got -1"),
        ("mnist/train_glow.py", ("--threads", 0), "--threads expects at least 1, got 0"),
        ("mnist/train_glow.py", ("--threads", 99999), f"--threads expects at most {os.cpu_count()}, the cores of"),
        ("mnist/train_glow.py", ("--seed", 2**63), "seed must be 0 ... 2^63 - 1, got 9223372036854775808"),
        ("mnist/train_glow.py", ("--memory", "some"), "--memory"),
        ("mnist/train_glow.py", ("--resume",), "nothing to resume"),
        ("mnist/train_realnvp.py", ("--fields.norm", "batch", "--memory", "invert"), 'expects norm "actnorm"'),
        ("mnist/train_realnvp.py", ("--penalty", -1), "--penalty expects at least 0, got -1"),
        ("mnist/train_pixelcnn.py", ("--head", "bernoulli"), 'expects 2 values with the head "bernoulli", got 17'),
        ("mnist/train_pixelcnn.py", ("--memory", "invert"), "--memory"),
        ("cifar10/train_glow.py", ("--conditional",), "--conditional expects images with labels, photographs has none"),
        ("cifar10/train_glow.py", ("--size", 97), "photographs expects a size of 1 to 96"),
        ("faces/train_glow.py", ("--data", "faces"), "faces expects --path, the npz file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(name, words, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = run(name, tmp_path / "run", *words)
    lines = [line for line in errors.splitlines() if "error" in line]
    assert code == 2 and len(lines) == 1 and "Traceback" not in errors
    assert lines[0].startswith(f"{Path(name).name}: error: ") and message in lines[0]
    assert not any(path.is_file() for path in tmp_path.rglob("*")) and not (tmp_path / "run").exists()


def write_idx(path: Path, array: np.ndarray) -> None:
    header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def test_download_comes_first_and_once(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)

    def download(name, folder):
        Path(folder).mkdir(parents=True)
        for part, count in (("train", 60), ("t10k", 30)):
            write_idx(Path(folder) / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 8, 8)))
            write_idx(Path(folder) / f"{part}-labels-idx1-ubyte.gz", rng.integers(0, 10, count))

    monkeypatch.setattr("waveflow.training.image_data.download_images", download)
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, errors = run("mnist/train_nice.py", tmp_path / "run", "--data", "mnist", "--download")
    assert code == 2 and "--download is for a single process" in errors and not (tmp_path / "run").exists()
    monkeypatch.delenv("WORLD_SIZE")
    code, said, _ = run("mnist/train_nice.py", tmp_path / "run", "--data", "mnist", "--download")
    assert code == 0 and "data: mnist, 1x8x8, 256 values: 50 to train on, 10 to validate, 30 to test" in said
    assert (tmp_path / "data" / "mnist").is_dir()


@pytest.fixture
def faces(tmp_path):
    """300 things like faces: grey noise, with a bright mouth where they smile."""
    rng = np.random.default_rng(0)
    smile = (np.arange(300) % 3 == 0).astype(np.uint8)
    jpegs = []
    for smiles in smile:
        face = rng.normal(120, 10, (64, 64)) + rng.normal(0, 20)
        face[44:52, 16:48] += 80 * smiles
        buffer = io.BytesIO()
        Image.fromarray(face.clip(0, 255).astype(np.uint8)).save(buffer, format="JPEG", quality=95)
        jpegs.append(buffer.getvalue())
    offsets = np.cumsum([0, *map(len, jpegs)])
    blob = np.frombuffer(b"".join(jpegs), np.uint8)
    np.savez(tmp_path / "faces_smile.npz", blob=blob, offsets=offsets, smile=smile)
    return tmp_path / "faces_smile.npz"


def test_edited_faces_smile(run, faces, tmp_path):
    words = ("--data", "faces", "--path", faces, "--learning-rate", 0.01)
    assert run("faces/train_glow.py", tmp_path / "run", *words, steps=30)[0] == 0
    words = ("--model", tmp_path / "run", "--path", faces, "--strengths", "[0, 0.5, 1]", "--shown", 3)
    code, _, errors = run("faces/edit.py", None, *words)
    assert code == 0, errors
    edited = json.loads((tmp_path / "run" / "edit" / "edit.json").read_text())
    assert edited["classifier"]["balanced_accuracy"] > 0.95
    assert edited["vector_from"]["smiling"] + edited["vector_from"]["neutral"] == 243
    shares = [row["smiling"] for row in edited["edited"]]
    assert shares[0] < 0.1 < shares[1] < shares[2] and shares[2] > 0.7
    assert all(row["smiling_in_a_random_direction"] < 0.3 for row in edited["edited"])
    assert edited["edited"][0]["bits_per_dim"] == pytest.approx(edited["real"]["neutral"]["bits_per_dim"], abs=1e-6)
    drawn = edited["drawn"]
    assert drawn["faces"] == 256 and drawn["temperature"] == 0.7
    assert drawn["smiling"][0] + 0.05 < drawn["smiling"][2] and sorted(drawn["smiling"]) == drawn["smiling"]
    names = {path.name for path in (tmp_path / "run" / "edit").iterdir()}
    pictures = {"smile.png", "blend.png", "drawn-smile.png", "drawn-blend.png"}
    assert names == pictures | {"smile.safetensors", "edit.json"}
    side, gap = 6 * 16, 2
    for name in ("smile.png", "drawn-smile.png"):
        assert Image.open(tmp_path / "run" / "edit" / name).size == 2 * (3 * side + 2 * gap,)

    # The vector is one for the command line, too.
    face = load_images("faces", faces, size=16).test.images[0, 0].numpy()
    Image.fromarray(face).save(tmp_path / "face.png")
    vector = str(tmp_path / "run" / "edit" / "smile.safetensors")
    words = [str(tmp_path / "run"), str(tmp_path / "face.png"), "--vector", vector, "--out", str(tmp_path / "e.png")]
    assert waveflow(["edit", *words]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "nowhere"), "nowhere"),
        (("--faces", 1), "--faces expects 0 for all, or at least 2, got 1"),
        (("--temperature", -0.5), "--temperature expects at least 0, got -0.5"),
        (("--shown", 0), "--shown expects at least 1, got 0"),
        (("--strengths", "[]"), "--strengths expects at least one"),
        (("--threads", 0), "--threads expects at least 1, got 0"),
        (("--threads", 99999), f"--threads expects at most {os.cpu_count()}, the cores of this machine, got 99999"),
        (("--seed", -1), "--seed expects a whole number from 0 to 2^63 - 1, got -1"),
        (("--seed", 2**64), "--seed expects a whole number from 0 to 2^63 - 1, got 18446744073709551616"),
        (("--model", "{digits}"), "expected a model of square grey faces without classes, got 1x8x8 and 10 classes"),
        (("--model", "{pixelcnn}"), "holds a GatedPixelCNN, expected a ImageFlow"),
        (("--model", "{glow}"), "faces expects --path"),
    ],
)
def test_editing_refuses_in_one_line(words, message, run, tmp_path):
    if words[0] == "--model" and words[1].startswith("{"):
        kind = words[1][1:-1]
        name, flags = {
            "digits": ("mnist/train_glow.py", ("--conditional",)),
            "pixelcnn": ("mnist/train_pixelcnn.py", ()),
            "glow": ("mnist/train_glow.py", ()),
        }[kind]
        run(name, tmp_path / "model", *flags, steps=1)
        words = ("--model", tmp_path / "model")
    code, _, errors = run("faces/edit.py", None, *words)
    (line,) = errors.splitlines()
    assert code == 2 and line.startswith("edit.py: error: ") and message in line
    assert not (tmp_path / "model" / "edit").exists()


@pytest.mark.parametrize("smiling", [0, 1, 300], ids=["none smile", "one smiles", "all smile"])
def test_editing_expects_faces_of_both_kinds(smiling, run, faces, tmp_path):
    Glow(height=8, width=8, levels=1, steps=1, hidden=2).save_pretrained(tmp_path / "model")
    arrays = dict(np.load(faces)) | {"smile": (np.arange(300) < smiling).astype(np.uint8)}
    np.savez(faces, **arrays)
    code, _, errors = run("faces/edit.py", None, "--model", tmp_path / "model", "--path", faces)
    (line,) = errors.splitlines()
    assert code == 2 and "faces: expected neutral and smiling faces in training and test" in line
    assert re.search(r"got \d+ neutral, \d+ smiling and \d+ neutral, \d+ smiling$", line)
    assert not (tmp_path / "model" / "edit").exists()


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "mnist").exists(), reason="needs MNIST")
def test_mnist_as_a_script_stopped_and_resumed(tmp_path):
    words = (RECIPES / "mnist/train_glow.py", "--data", "mnist", "--path", DATA / "mnist", "--device", "cpu", *GLOW)
    words += ("--out", tmp_path / "run", "--test-images", 50, "--validate-images", 50, "--samples", 9)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def script(*more):
        call = [sys.executable, *map(str, (*words, *more))]
        return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    process = script("--steps", 5000)
    for line in process.stderr:
        if "step 0: validation" in line:
            break
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143 and "--resume" in errors and "Traceback" not in errors
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    done = int(checkpoint.stem.removeprefix("step-"))
    assert json.loads((tmp_path / "run" / "logs" / "minutes.json").read_text())["total"] > 0
    process = script("--steps", done + 2, "--resume")
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "10,000 to test" in said and "bits/dim on 50 of 10,000 images" in said

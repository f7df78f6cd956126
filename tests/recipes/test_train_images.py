"""Many runs at once, in sittings, and carried from machine to machine; rehearsed with tiny models."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from waveflow.cli import run_command
from waveflow.errors import InputError
from waveflow.models import load_model
from waveflow.training.checkpoint import write_checkpoint

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = ("--tiny", "--device", "cpu", "--validate-every", 2, "--minutes", 10)


def script(name, monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    monkeypatch.delitem(sys.modules, "run_parts", raising=False)
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recipe(monkeypatch):
    return script("train_images", monkeypatch)


@pytest.fixture
def parts(monkeypatch):
    return script("run_parts", monkeypatch)


@pytest.fixture
def run(recipe, capsys):
    def call(*words) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command(lambda: recipe.main([str(word) for word in words]), "train_images.py")
        return code, *capsys.readouterr()

    return call


def make_run(path, size=1000) -> None:
    import torch

    weight = torch.arange(float(size))
    for folder in ("checkpoints", "logs", "samples", "best"):
        (path / folder).mkdir(parents=True)
    tree = {
        "model": {"w": weight},
        "ema": {"average": {"w": weight}},
        "optimizer": {"state": {0: {"exp_avg": weight, "exp_avg_sq": weight}}},
        "state": {"step": 7},
    }
    write_checkpoint(path / "checkpoints" / "step-00000007.safetensors", tree)
    for name in ("logs/metrics.csv", "logs/minutes.json", "logs/events.out.tfevents.1", "best/model.safetensors"):
        (path / name).write_text(name)
    for name in ("step-00000005", "step-00000007", "samples"):
        (path / "samples" / f"{name}.png").write_text(name)


def test_runs_are_carried_in_parts(parts, tmp_path):
    runs = [tmp_path / "runs" / name for name in ("a", "b")]
    for path in runs:
        make_run(path)
    (tmp_path / "runs" / "a.log").write_text("said")
    assert parts.pack(runs, tmp_path / "packed", 20_000, 10**6) == []
    sizes = [path.stat().st_size for path in sorted((tmp_path / "packed").iterdir())]
    assert len(sizes) > 2 and set(sizes[:-1]) == {20_000} and sizes[-1] <= 20_000
    parts.unpack(tmp_path / "packed", tmp_path / "there")
    found = {path.relative_to(tmp_path / "there").as_posix() for path in (tmp_path / "there").rglob("*.*")}
    files = {"checkpoints/step-00000007.safetensors", "logs/metrics.csv", "logs/minutes.json", "best/model.safetensors"}
    files |= {"samples/samples.png", "samples/step-00000007.png"}
    assert found == {"a.log"} | {f"{name}/{file}" for name in "ab" for file in files}
    assert (tmp_path / "there" / "a" / "logs" / "minutes.json").read_text() == "logs/minutes.json"
    assert not (runs[0] / "packed").exists()


def test_states_are_left_out_first(parts, tmp_path):
    runs = [tmp_path / "runs" / name for name in ("large", "small")]
    make_run(runs[0], 100_000)
    make_run(runs[1], 1000)
    left_out = parts.pack(runs, tmp_path / "packed", 10**6, 200_000)
    assert left_out and all(name.startswith("large/packed/") for name in left_out)
    parts.unpack(tmp_path / "packed", tmp_path / "there")
    assert (tmp_path / "there" / "large" / "best" / "model.safetensors").exists()
    assert [path.parts[-3] for path in (tmp_path / "there").glob("*/checkpoints/*")] == ["small"]
    assert sum(path.stat().st_size for path in (tmp_path / "packed").iterdir()) <= 200_000


def test_best_models_come_before_states(parts, tmp_path):
    run = tmp_path / "runs" / "a"
    make_run(run, 5000)  # a state of some 40 kB
    (run / "best" / "model.safetensors").write_bytes(bytes(60_000))
    left_out = parts.pack([run], tmp_path / "packed", 10**6, 110_000)
    assert left_out and all(name.startswith("a/packed/") for name in left_out)
    assert parts.pack([run], tmp_path / "packed", 10**6, 150_000) == []


def test_fewer_parts_replace_more(parts, tmp_path):
    make_run(tmp_path / "runs" / "a")
    parts.pack([tmp_path / "runs" / "a"], tmp_path / "packed", 10_000, 10**6)
    parts.pack([tmp_path / "runs" / "a"], tmp_path / "packed", 10**6, 10**6)
    assert [path.name for path in (tmp_path / "packed").iterdir()] == ["runs.tar.00"]


@pytest.mark.parametrize("harm", ["none", "missing", "damaged"])
def test_what_is_no_set_of_parts_is_refused(harm, parts, tmp_path):
    make_run(tmp_path / "runs" / "a")
    parts.pack([tmp_path / "runs" / "a"], tmp_path / "packed", 10_000, 10**6)
    for path in sorted((tmp_path / "packed").iterdir())[: {"none": None, "missing": 1, "damaged": 0}[harm]]:
        path.unlink()
    if harm == "damaged":
        (tmp_path / "packed" / "runs.tar.00").write_bytes(b"x" * 10_000)
    with pytest.raises(InputError, match=r"found 0 parts|expected runs.tar.00|damaged"):
        parts.unpack(tmp_path / "packed", tmp_path / "there")


def test_who_is_asked_to_stop_is_waited_for(recipe, tmp_path):
    code = "import signal, sys, time\nsignal.signal(15, lambda *_: (open({!r}, 'w').write('saved'), sys.exit(143)))\n"
    code = code.format(str(tmp_path / "saved")) + "open({!r}, 'w'); time.sleep(60)".format(str(tmp_path / "ready"))
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    recipe.stop([process])
    assert process.returncode == 143 and (tmp_path / "saved").read_text() == "saved"


def test_who_does_not_stop_is_killed(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "GRACE", 0.3)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); open({!r}, 'w'); time.sleep(60)"
    code = code.format(str(tmp_path / "ready"))
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    recipe.stop([process])
    assert process.returncode == -9


def test_every_plan_is_a_command_that_its_recipe_takes(recipe, tmp_path, monkeypatch):
    """Words of the real plans reach their recipes, which say no for want of data only."""
    for name in recipe.PLANS:
        args = recipe.Arguments(data=str(tmp_path / "nowhere"), out=str(tmp_path / "out"), device="cpu")
        script_path, *words = recipe.command(name, args, report=False)[1:]
        path = Path(script_path)
        monkeypatch.syspath_prepend(str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with pytest.raises((InputError, OSError), match="nowhere"):
            module.main(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--only", "[mnist]"), "--only expects some of mnist-realnvp,"),
        (("--minutes", 0), "expect positive numbers"),
        (("--unpack", "nowhere"), "expected runs.tar.00"),
    ],
)
def test_bad_input_is_one_line(words, message, run, tmp_path):
    code, _, errors = run(*TINY, *words, "--out", tmp_path / "out")
    assert code == 2 and message in errors and "Traceback" not in errors


@pytest.mark.slow
def test_a_second_sitting_on_another_machine_goes_on(run, tmp_path):
    words = (*TINY, "--only", "[mnist-glow, mnist-pixelcnn, faces-glow]")
    code, said, errors = run(*words, "--steps", 4, "--out", tmp_path / "a", "--pack", tmp_path / "parts")
    assert code == 0 and "mnist-pixelcnn: " in said, errors
    code, said, errors = run(*words, "--steps", 6, "--out", tmp_path / "b", "--unpack", tmp_path / "parts")
    assert code == 0 and said.count("step 6 of 6") + said.count("step 4 of 6") + said.count("step 2 of 6") == 3, errors
    for name in ("mnist-glow", "mnist-pixelcnn", "faces-glow"):
        assert json.loads((tmp_path / "b" / name / "logs" / "test.json").read_text())["steps"] == 6
        assert load_model(tmp_path / "b" / name / "best").image_shape
        curve = (tmp_path / "b" / name / "logs" / "curve.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in curve[1:]] == ["0", "2", "4", "6"]

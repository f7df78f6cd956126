"""The density recipe as its users run it, small."""

import importlib.util
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from waveflow.cli import run_command
from waveflow.data import load_table
from waveflow.models import load_model

RECIPE = Path(__file__).parents[2] / "recipes" / "density" / "train.py"


@pytest.fixture
def train(monkeypatch, capsys):
    """Run the recipe in this process: (exit code, standard output, standard error)."""
    monkeypatch.syspath_prepend(RECIPE.parent)
    spec = importlib.util.spec_from_file_location("train_density", RECIPE)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)

    def call(out, *words, steps=4) -> tuple[int, str, str]:
        words = ("--steps", steps, "--device", "cpu", "--hidden", "[8]", "--layers", 2, "--batch-size", 32, *words)
        words += () if out is None else ("--out", out)
        capsys.readouterr()
        code = run_command(lambda: recipe.main([str(word) for word in words]), "train.py")
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def table(tmp_path):
    """A file of three columns, off-centre and of different scales."""
    numbers = np.random.default_rng(0).normal(size=(400, 3)) * [1, 30, 0.1] + [0, 50, -2]
    numbers[:, 2] += 0.1 * numbers[:, 0] ** 2

    def write(name="t.npz", numbers=numbers):
        path = tmp_path / name
        if name.endswith(".npz"):
            np.savez(path, x=numbers)
        else:
            np.savetxt(path, numbers, delimiter=",", header="a,b,c", comments="")
        return path

    write.numbers = numbers
    return write


def files(out) -> dict[str, bytes]:
    """What has to be equal in equal runs."""
    paths = [path for path in out.rglob("*") if path.is_file() and "tfevents" not in path.name]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("model", ["maf", "iaf", "planar", "coupling", "nsf-ar", "nsf-c"])
def test_every_model_leaves_what_is_promised(model, train, table, tmp_path):
    out = tmp_path / "run"
    code, said, errors = train(out, "--model", model, "--data", table())
    assert code == 0, errors
    assert set(files(out)) == {
        "config.json",
        "model.safetensors",
        "checkpoints/step-00000004.safetensors",
        "logs/metrics.csv",
        "logs/test.json",
        "samples/pairs.png",
    }
    assert str(out) in said.splitlines()[-1]


def test_reports_the_likelihood_of_the_test_rows_with_its_error(train, table, tmp_path):
    path = table("t.csv")
    code, said, _ = train(tmp_path / "run", "--data", path, "--learning-rate", 0.01, steps=60)
    assert code == 0
    report = json.loads((tmp_path / "run" / "logs" / "test.json").read_text())
    model, rows = load_model(tmp_path / "run"), load_table(path)
    assert model.config.features == 3
    nats = model.log_prob(rows.test).double()
    assert report["nats"] == pytest.approx(nats.mean().item(), abs=1e-4) and report["test_rows"] == 40
    assert report["standard_error"] == pytest.approx(nats.std().item() / math.sqrt(40), rel=1e-4)

    # In standardised units: the density of x / std is that of x times the product of the stds.
    std = rows.known.double().std(0, correction=0)
    assert report["nats_standardised"] == pytest.approx(report["nats"] + std.log().sum().item(), abs=1e-4)
    known, test = rows.known.double(), rows.test.double()
    gaussian = torch.distributions.MultivariateNormal(known.mean(0), known.T.cov()).log_prob(test).mean().item()
    assert report["gaussian_nats"] == pytest.approx(gaussian, abs=1e-3)
    printed = re.findall(r"test: (\S+) ± (\S+) nats a row, (.*) \(a Gaussian: (\S+)\)", said)
    assert [line[2] for line in printed] == ["standardised", "in the table's units"]
    for line, kind in zip(printed, ("nats_standardised", "nats"), strict=True):
        assert float(line[0]) == pytest.approx(report[kind], abs=1e-3)
        assert float(line[3]) == pytest.approx(report[f"gaussian_{kind}"], abs=1e-3)


def test_samples_are_in_the_units_of_the_table(train, table, tmp_path):
    train(tmp_path / "run", "--data", table())
    samples = load_model(tmp_path / "run").sample((4000,))
    numbers = torch.tensor(table.numbers, dtype=torch.float32)
    torch.testing.assert_close(samples.std(0), numbers.std(0), rtol=0.15, atol=0)
    assert ((samples.mean(0) - numbers.mean(0)).abs() < 0.2 * numbers.std(0)).all()


def test_learns_a_toy_and_draws_it(train, tmp_path):
    words = ("--hidden", "[32, 32]", "--learning-rate", 0.01)
    assert train(tmp_path / "run", *words, steps=120)[0] == 0
    assert {"samples/density.png", "samples/grid.png"} <= set(files(tmp_path / "run"))
    report = json.loads((tmp_path / "run" / "logs" / "test.json").read_text())
    assert report["nats"] > report["gaussian_nats"] + 0.2


def test_one_column_needs_no_picture(train, table, tmp_path):
    path = table(numbers=table.numbers[:, :1])
    assert train(tmp_path / "run", "--data", path)[0] == 0
    assert not any((tmp_path / "run" / "samples").iterdir())


def test_equal_seeds_give_equal_bytes(train, table, tmp_path):
    for out, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert train(tmp_path / out, "--data", table(), "--seed", seed)[0] == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["model.safetensors"] != files(tmp_path / "c")["model.safetensors"]


def test_a_run_in_two_parts_equals_one(train, table, tmp_path):
    words = ("--data", table(), "--validate-every", 2, "--save-every", 2)
    assert train(tmp_path / "whole", *words)[0] == 0
    assert train(tmp_path / "parts", *words, steps=2)[0] == 0
    assert train(tmp_path / "parts", *words, "--resume")[0] == 0
    assert files(tmp_path / "whole") == files(tmp_path / "parts")


def test_without_out_runs_are_named_by_model_and_data(train, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert train(None, "--data", table())[0] == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["density-maf-t", "density-maf-t-2"]


def test_says_what_it_left_out_and_what_recurs(train, table, tmp_path):
    numbers = table.numbers.copy()
    numbers[:3, 1], numbers[:, 2] = math.nan, np.arange(400) % 5
    path = table("t.csv", numbers)
    code, said, _ = train(tmp_path / "a", "--data", path, "--drop-nan")
    assert code == 0 and "left out 3 rows" in said and "few values recur in c: the density has no bound" in said
    code, said, _ = train(tmp_path / "b", "--data", path, "--drop-nan", "--dequantise")
    assert code == 0 and "recur" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "moon"], "'moon' is neither a file nor one of moons, rings,"),
        (["--data", "power"], "power expects --path FILE"),
        (["--data", "nowhere.csv"], "nowhere.csv: No such file"),
        (["--data", "{nan}"], "4 of 400 rows hold values that are not finite (in b); --drop-nan"),
        (["--data", "{constant}"], "leave out what is constant over the rows to learn from: b"),
        (["--data", "{text}"], "these columns are not numeric: kind"),
        (["--model", "gan"], "--model"),
        (["--model", "nsf-ar", "--bins", 1], "NSF expects bins >= 2"),
        (["--model", "coupling", "--data", "{one}"], "CouplingFlow expects at least 2 features, got 1"),
        (["--hidden", "[0]"], "MAF expects hidden of at least 1, got (0,)"),
        (["--layers", 0], "MAF expects layers of at least 1, got 0"),
        (["--layers", 0, "--model", "planar"], "PlanarFlow expects layers of at least 1, got 0"),
        (["--steps", 0], "steps must be at least 1, got 0"),
        (["--threads", 0], "--threads expects at least 1, got 0"),
        (["--resume"], "nothing to resume"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, message, train, table, tmp_path):
    for name, change in (("nan", (slice(4), 1, math.nan)), ("constant", (slice(None), 1, 7.0))):
        numbers = table.numbers.copy()
        numbers[change[0], change[1]] = change[2]
        table(f"{name}.csv", numbers)
    table("one.npz", table.numbers[:, :1])
    (tmp_path / "text.csv").write_text("a,kind\n" + "1,x\n2,y\n" * 20)
    paths = {name: tmp_path / f"{name}.csv" for name in ("nan", "constant", "text")} | {"one": tmp_path / "one.npz"}
    code, _, errors = train(tmp_path / "run", *[str(word).format(**paths) for word in words])
    (line,) = errors.splitlines()
    assert code == 2 and line.startswith("train.py: error: ") and message in line
    assert not (tmp_path / "run").exists()


def test_says_when_rows_are_learnt_by_heart(train, table, tmp_path):
    path = table(numbers=table.numbers[:60])
    words = ("--data", path, "--hidden", "[64]", "--learning-rate", 0.02, "--validate-every", 20, "--model", "nsf-ar")
    code, said, _ = train(tmp_path / "run", *words, steps=100)
    assert code == 0 and re.search(r"it was better at step \d+, \S+: the flow has begun to learn rows by heart", said)

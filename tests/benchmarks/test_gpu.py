"""The benchmark for GPUs, rehearsed on a CPU."""

import csv
import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from waveflow.cli import run_command

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu", module)  # dataclasses look themselves up
    spec.loader.exec_module(module)
    small = {
        "flows": ("WaveGlow tiny", "ParallelWaveNet tiny"),
        "batches": (2,),
        "seconds": (0.05,),
        "trained": (("WaveGlow tiny", 2),),
        "sampled": (2,),
        "frames": (("graph", 1), ("kernel", 1)),
    }
    monkeypatch.setattr(module, "TINY", dataclasses.replace(module.TINY, **small))
    yield module
    torch.compiler.set_stance("default")


def benchmark(module, *words) -> int:
    words = ("--device", "cpu", "--tiny", *words)
    return run_command(lambda: module.main([str(word) for word in words]), "gpu.py")


def read(folder):
    with open(folder / "gpu.csv", newline="") as file:
        return {tuple(row.values())[:6]: row for row in csv.DictReader(file)}


def test_every_figure_is_written_as_it_comes(gpu, tmp_path, monkeypatch):
    seen, add = [], gpu.Table.add
    monkeypatch.setattr(gpu.Table, "add", lambda self, figure: (add(self, figure), seen.append(len(read(tmp_path)))))
    assert benchmark(gpu, "--out", tmp_path) == 0
    rows = read(tmp_path)
    assert seen == list(range(1, len(rows) + 1))
    kinds = [("product", 2), ("synthesis", 16), ("training", 4), ("sampling", 2)]
    for task, count in kinds:
        assert sum(key[0] == task for key in rows) == count
    for key, row in rows.items():
        if "graph" in key[3]:
            assert row["note"].startswith("failed, InputError: ") and "CUDA" in row["note"]
            continue
        assert not row["note"]
        assert float(row["milliseconds"]) > 0
        if key[0] != "product":
            batch, frames = int(key[4]), round(float(key[5]) * 22050 / 256) if key[0] != "training" else 1024 / 256
            rate = batch * frames * 256 / float(row["milliseconds"]) * 1e3
            assert float(row["samples_per_second"]) == pytest.approx(rate, rel=1e-3)
            assert float(row["times_real_time"]) == pytest.approx(rate / 22050, rel=1e-3)
        if key[0] != "sampling":
            product = float(rows["product", "128 cubed", "bf16", "", "1", "0"]["tflops"])
            assert float(row["share"]) == pytest.approx(float(row["tflops"]) / product, rel=2e-3)
    for precision in ("bf16", "fp32"):
        product = rows["product", "128 cubed", precision, "", "1", "0"]
        flop = float(product["tflops"]) * float(product["milliseconds"]) * 1e9
        assert flop == pytest.approx(2 * 128**3, rel=2e-3)
    work = {}  # of a step, whichever way it is kept in memory, and of a synthesis, compiled or not
    for key, row in rows.items():
        if row["tflops"] and key[0] != "product":
            work.setdefault((key[:3]), []).append(float(row["tflops"]) * float(row["milliseconds"]))
    for same in work.values():
        assert len(same) == 2 and same[0] == pytest.approx(same[1], rel=3e-3)
    text = (tmp_path / "gpu.md").read_text()
    assert "a rehearsal with small models" in text
    assert all(f"## {task}\n" in text for task, _ in kinds)
    assert sum(line.startswith("| WaveGlow tiny") for line in text.splitlines()) == 8 + 4


def test_goes_on_where_it_was(gpu, tmp_path, capsys):
    assert benchmark(gpu, "--out", tmp_path, "--only", "[sampling]") == 0
    before = read(tmp_path)
    assert {key[0] for key in before} == {"product", "sampling"}
    assert benchmark(gpu, "--out", tmp_path, "--only", "[sampling]") == 2
    assert "gpu.csv is there already; say --resume, or another --out" in capsys.readouterr().err
    assert benchmark(gpu, "--out", tmp_path, "--only", "[sampling, training]", "--resume") == 0
    after = read(tmp_path)
    assert {key[0] for key in after} == {"product", "sampling", "training"}
    kernel = ("sampling", "WaveNet tiny", "fp32", "kernel", "2", "0.0116")
    assert after[kernel] == before[kernel]
    said = capsys.readouterr().out
    assert " kernel " not in said and " graph " in said  # what failed is tried again


def test_begins_nothing_after_its_minutes(gpu, tmp_path, capsys):
    assert benchmark(gpu, "--out", tmp_path, "--minutes", 1e-9) == 0
    assert "stopped after 1e-09 minutes; --resume goes on" in capsys.readouterr().out
    assert not (tmp_path / "gpu.csv").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--minutes", 0), "--minutes expects a positive number, got 0.0"),
        (("--device", "cuda"), "--device is cuda, but PyTorch sees no CUDA device here"),
        (("--only", "[speed]"), "--only"),
    ],
)
def test_wrong_flags_are_refused(gpu, tmp_path, capsys, monkeypatch, words, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark(gpu, "--out", tmp_path / "out", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line and not (tmp_path / "out").exists()


def test_another_table_is_left_alone(gpu, tmp_path, capsys):
    (tmp_path / "gpu.csv").write_text("a,b\n1,2\n")
    assert benchmark(gpu, "--out", tmp_path, "--resume") == 2
    assert "not a table of this benchmark" in capsys.readouterr().err
    assert (tmp_path / "gpu.csv").read_text() == "a,b\n1,2\n"

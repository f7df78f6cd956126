"""The benchmark for GPUs, rehearsed on a CPU."""

import csv
import dataclasses
import importlib.util
import sys
import time
from pathlib import Path

import pytest
import torch

from waveflow.cli import run_command
from waveflow.networks.waveflow_stack import height_dilations

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.delitem(sys.modules, "gpu_table", raising=False)
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
    with torch._dynamo.config.patch(recompile_limit=8, automatic_dynamic_shapes=True):
        yield module
    torch.compiler.set_stance("default")


def benchmark(module, *words) -> int:
    words = ("--device", "cpu", "--tiny", *words)
    return run_command(lambda: module.main([str(word) for word in words]), "gpu.py")


def read(folder):
    with open(folder / "gpu.csv", newline="") as file:
        return {tuple(row.values())[:6]: row for row in csv.DictReader(file)}


def test_every_figure_is_written_as_it_comes(gpu, tmp_path, monkeypatch):
    seen, measure = [], gpu.Table.measure

    def measured(self, call, **keys):
        measure(self, call, **keys)
        seen.append(len(read(tmp_path)))

    monkeypatch.setattr(gpu.Table, "measure", measured)
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
        assert bool(row["compile_seconds"]) == (key[3] == "compiled")
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
    kernel = ("sampling", "WaveNet tiny", "fp32", "kernel", "2", "0.01161")
    assert after[kernel] == before[kernel]
    said = capsys.readouterr().out
    assert " kernel " not in said and " graph " in said  # what failed is tried again


def test_begins_nothing_after_its_minutes(gpu, tmp_path, capsys):
    assert benchmark(gpu, "--out", tmp_path, "--minutes", 1e-9) == 0
    assert "stopped after 1e-09 minutes; 24 rows are left for --resume" in capsys.readouterr().out
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


def test_operations_are_those_of_a_count_by_hand(gpu):
    bench = gpu.Bench("cpu", gpu.TINY)
    model = bench.model("WaveFlow tiny")
    c, frames = model.config, round(0.05 * 22050 / 256)
    columns, width = frames * 256 // c.height, c.channels
    flow = c.layers * 2 * columns * 2 * width * c.context_channels  # conditions, the same for all rows
    for row in range(c.height - 1):  # the last one has no successor
        for layer, dilation in enumerate(height_dilations(c.height, c.layers)):
            above = min(3, row // dilation + 1)  # rows of the kernel that there are
            residual = width if layer < c.layers - 1 else 0
            flow += 2 * columns * (2 * width * width * above * 3 + width * (2 + residual))
    encoder = 2 * frames * model.layers[1].encoder.convolution.weight.numel()
    assert bench.flop("WaveFlow tiny", 0.05) == c.flows * flow + encoder


def test_operations_of_training_are_three_times_those_of_the_density(gpu):
    bench = gpu.Bench("cpu", gpu.TINY)
    model, segment = bench.model("WaveGlow tiny"), bench.sizes.segment
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        model.log_prob(0.1 * torch.randn(1, segment), torch.randn(1, 80, segment // 256) - 5)
    assert bench.flop_trained("WaveGlow tiny") == pytest.approx(3 * counter.get_total_flops(), rel=0.1)


def test_a_row_that_takes_too_long_is_broken_off_and_not_tried_again(gpu, tmp_path):
    def table(**limits):
        return gpu.Table(tmp_path / "a.csv", ("what",), ("seconds",), resume=True, **limits)

    def never():
        while True:
            time.sleep(0.01)

    late = table(end=time.monotonic() - 9.9)
    late.measure(never, what="x")
    late.measure(lambda: {"seconds": 1.0}, what="x")
    assert late.left_out == 2 and not late.rows  # not begun, but for the first, nor found to take long
    slow = table(patience=0.05)
    slow.measure(never, what="x")
    assert [row["note"] for row in slow.rows] == ["not done in 0.05 seconds"]
    table().measure(lambda: pytest.fail("tried again"), what="x")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_no_row_fails(gpu, tmp_path):
    assert run_command(lambda: gpu.main(["--tiny", "--out", str(tmp_path)]), "gpu.py") == 0
    rows = read(tmp_path)
    assert {key[3] for key in rows if key[0] == "synthesis"} == {"eager", "graph", "compiled", "compiled, graph"}
    assert [row for row in rows.values() if row["note"]] == []
    assert all(float(row["peak_mib"]) > 0 for key, row in rows.items() if key[0] == "training")

"""The benchmark of image models on a GPU, rehearsed on a CPU."""

import csv
import sys
from pathlib import Path

import pytest
import torch

from waveflow.cli import run_command
from waveflow.models import GatedPixelCNN, Glow

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = ("--device", "cpu", "--tiny", "--repeats", 1)


@pytest.fixture
def gpu_images(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("gpu_images", "gpu_table", "glow", "glow_peers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import gpu_images

    with torch._dynamo.config.patch(recompile_limit=8, automatic_dynamic_shapes=True):
        yield gpu_images
    torch.compiler.set_stance("default")


@pytest.fixture
def run(gpu_images, capsys):
    def call(*words) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command(lambda: gpu_images.main([str(word) for word in words]), "gpu_images.py")
        return code, *capsys.readouterr()

    return call


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_is_written(run, tmp_path):
    code, said, errors = run(*TINY, "--batches", "[2]", "--pixel-batches", "[1]", "--out", tmp_path)
    assert code == 0 and str(tmp_path) in said, errors
    table = rows(tmp_path / "glow.csv")
    assert [row["library"] for row in table[:2]] == ["PyTorch"] * 2 and all(
        float(row["tflops"]) > 0 for row in table[:2]
    )
    ours = [row for row in table if row["library"] == "waveflow"]
    kinds = {(row["what"], row["precision"], row["mode"], row["memory"]) for row in ours}
    both = ("float32", "bf16")
    stored = {(w, p, m, "store") for w in ("training", "sampling") for p in both for m in ("eager", "compiled")}
    assert kinds == stored | {("training", p, "eager", "invert") for p in both} and len(ours) == len(kinds)
    for row in ours:
        assert float(row["images_per_second"]) == pytest.approx(2e3 / float(row["milliseconds"]), rel=2e-3)
        assert bool(row["compile_seconds"]) == (row["mode"] == "compiled")
    peers = [row for row in table if row["library"] == "normflows"]
    assert len(peers) == 8 and all(row["milliseconds"] or "normflows" in row["note"] for row in peers)
    pixels = rows(tmp_path / "pixelcnn.csv")
    assert len(pixels) == 2 * 3 * 3 and all(float(row["seconds"]) > 0 for row in pixels)
    assert all((row["rounds"] != "") == (row["solver"] == "jacobi") for row in pixels)
    assert (tmp_path / "pixelcnn.md").read_text().count("\n") == 2 + len(pixels)


def test_resume_does_what_is_missing(run, gpu_images, tmp_path, monkeypatch):
    words = (*TINY, "--parts", "[pixelcnn]", "--presets", "[mnist-binary]", "--out", tmp_path)
    assert run(*words, "--pixel-batches", "[1]")[0] == 0
    before = rows(tmp_path / "pixelcnn.csv")
    code, _, errors = run(*words, "--pixel-batches", "[1]")
    assert code == 2 and "is there already" in errors and rows(tmp_path / "pixelcnn.csv") == before
    assert run(*words, "--pixel-batches", "[1, 2]", "--resume")[0] == 0
    after = rows(tmp_path / "pixelcnn.csv")
    assert after[:6] == before and [row["batch"] for row in after[6:]] == ["2"] * 6
    code, said, _ = run(*words, "--pixel-batches", "[3]", "--resume", "--minutes", 1e-9)
    assert code == 0 and "6 rows are left" in said and rows(tmp_path / "pixelcnn.csv") == after


def test_a_row_that_fails_says_so_and_is_tried_again(gpu_images, tmp_path):
    def table():
        return gpu_images.Table(tmp_path / "a.csv", ("what",), ("seconds",), resume=True)

    def fail():
        raise torch.OutOfMemoryError('no "memory", none\nat all')

    table().measure(fail, what="x, y")
    assert rows(tmp_path / "a.csv") == [{"what": "x, y", "seconds": "", "note": rows(tmp_path / "a.csv")[0]["note"]}]
    assert rows(tmp_path / "a.csv")[0]["note"] == 'failed, OutOfMemoryError: no "memory", none at all'
    table().measure(lambda: {"seconds": 0.12345}, what="x, y")
    table().measure(fail, what="x, y")
    assert rows(tmp_path / "a.csv") == [{"what": "x, y", "seconds": "0.1235", "note": ""}]


def test_operations_are_those_of_a_count_by_hand(gpu_images):
    found = gpu_images.operations_of("waveflow", "sampling", True, torch.device("cpu"))
    by_hand = 0
    for side, channels, prior in ((4, 12, 6), (2, 24, 0)):
        half, pixels = channels // 2, side * side
        network = 9 * half * 8 + 8 * 8 + 9 * 8 * 2 * half
        by_hand += 2 * pixels * (channels * channels + network + 9 * prior * 2 * prior)
    assert found == by_hand


def test_trained_pixelcnns_are_drawn_from(run, tmp_path):
    GatedPixelCNN.from_preset("digits", hidden=4, layers=1, classes=10).save_pretrained(tmp_path / "run")
    words = (*TINY, "--parts", "[pixelcnn]", "--pixel-batches", "[2]", "--out", tmp_path / "out")
    assert run(*words, "--pixelcnn", f"[{tmp_path / 'run'}]")[0] == 0
    table = rows(tmp_path / "out" / "pixelcnn.csv")
    assert [row["solver"] for row in table] == ["jacobi", "sequential", "network a number"]
    assert all(row["weights"] == "trained" and row["numbers"] == "64" for row in table)
    Glow.from_preset("digits", steps=1, hidden=4).save_pretrained(tmp_path / "glow")
    code, _, errors = run(*words, "--pixelcnn", f"[{tmp_path / 'glow'}]")
    assert code == 2 and "expects runs of PixelCNNs, got a Glow" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--presets", "[huge]"), "--presets expects some of"),
        (("--repeats", 0), "--repeats of at least 1"),
        (("--batches", "[0]"), "numbers of at least 1"),
    ],
)
def test_bad_input_is_one_line(words, message, run, tmp_path):
    code, _, errors = run(*TINY, *words, "--out", tmp_path / "out")
    assert code == 2 and message in errors and "Traceback" not in errors and not (tmp_path / "out").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_no_row_fails(run, tmp_path):
    words = ("--tiny", "--batches", "[2]", "--pixel-batches", "[2]", "--out", tmp_path)
    code, _, errors = run(*words)
    assert code == 0, errors
    table = [row for row in rows(tmp_path / "glow.csv") if row["library"] != "normflows"]
    assert [row for row in (*table, *rows(tmp_path / "pixelcnn.csv")) if row["note"].startswith("failed")] == []
    assert all(float(row["peak_mb"]) >= 0 for row in table if row["library"] == "waveflow")

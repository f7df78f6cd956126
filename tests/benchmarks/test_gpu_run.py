"""The run of limited time, rehearsed on a CPU with a training of a few steps."""

import importlib.util
import sys
from pathlib import Path

import pytest

from waveflow.cli import run_command

ROOT = Path(__file__).parents[2]
TRAIN = (
    "recipes/ljspeech/train_waveglow.py --segment 1024 --batch-size 1 --validate-every 0 --validate-clips 1 "
    f"--save-every 2 --data {ROOT / 'samples' / 'speech'}"
)


@pytest.fixture
def gpu_run(monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu_run", ROOT / "benchmarks" / "gpu_run.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_run", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "POLL", 0.2)
    return module


def call(module, *words) -> int:
    words = ("--device", "cpu", "--tiny", *map(str, words))
    return run_command(lambda: module.main(list(words)), "gpu_run.py")


@pytest.mark.slow
def test_goes_on_elsewhere_from_what_it_left(gpu_run, tmp_path, capfd):
    words = ("--train", TRAIN, "--tests-minutes", 0, "--benchmark-minutes", 0, "--minutes", 5, "--part-megabytes", 1)
    first, second = tmp_path / "first", tmp_path / "second"
    assert call(gpu_run, *words, "--out", first, "--run", tmp_path / "run-1", "--steps", 4) == 0
    names = {path.name for path in first.iterdir()}
    assert {"state.json", "state.0", "state.6", "metrics.csv"} <= names
    assert all(path.stat().st_size <= 1_000_000 for path in first.iterdir())
    assert call(gpu_run, *words, "--out", second, "--run", tmp_path / "run-2", "--steps", 6, "--start", first) == 0
    said = capfd.readouterr()
    assert f"training: from step 4 of {first}" in said.out and f"training: step 6 is in {second}" in said.out
    assert "steps 4 to 6" in said.err
    assert (tmp_path / "run-2" / "model.safetensors").exists()


@pytest.mark.slow
def test_stops_a_training_whose_time_is_over(gpu_run, tmp_path, monkeypatch, capfd):
    checkpoints = tmp_path / "run" / "checkpoints"
    monkeypatch.setattr(gpu_run.Clock, "left", lambda self: 0.0 if any(checkpoints.glob("step-*")) else 100.0)
    words = ("--train", TRAIN, "--tests-minutes", 0, "--benchmark-minutes", 0)
    assert call(gpu_run, *words, "--out", tmp_path / "out", "--run", tmp_path / "run", "--light") == 0
    assert "stopped by SIGTERM" in capfd.readouterr().err
    assert {"state.json", "state.0", "metrics.csv"} == {path.name for path in (tmp_path / "out").iterdir()}


def test_tests_and_benchmark_leave_what_they_say(gpu_run, tmp_path, monkeypatch):
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "gpu.csv").write_text("figures")
    called, signals = [], []

    class Process:
        def __init__(self, words, **options):
            called.append(words)
            self.tests = "pytest" in words
            if self.tests:
                options["stdout"].write("2 passed\n")

        def wait(self, timeout):
            if not self.tests and not signals:
                raise gpu_run.subprocess.TimeoutExpired("benchmark", timeout)
            return 0

        def poll(self):
            return 0 if self.tests or signals else None

        def send_signal(self, signum):
            signals.append(signum)

    monkeypatch.setattr(gpu_run.subprocess, "Popen", Process)
    assert call(gpu_run, "--out", tmp_path / "out", "--start", tmp_path / "before") == 0
    tests, benchmark = called
    assert signals == [gpu_run.signal.SIGTERM]
    assert tests[2:7] == ["-m", "pytest", "-m", "gpu", "-q"] and {"--resume", "--tiny"} <= set(benchmark)
    assert (tmp_path / "out" / "tests.txt").read_text() == "2 passed\nexit code 0\n"
    assert (tmp_path / "out" / "gpu.csv").read_text() == "figures"


def test_reports_are_found_in_one_file_too(gpu_run, tmp_path):
    for name, content in (("gpu.csv", "figures"), ("tests.txt", "passed")):
        (tmp_path / name).write_text(content)
    expected = gpu_run.reports(tmp_path)
    gpu_run.gather(tmp_path)
    gpu_run.gather(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["reports.tar"] and gpu_run.reports(tmp_path) == expected
    (tmp_path / "gpu.csv").write_text("more figures")
    assert gpu_run.reports(tmp_path) == {"gpu.csv": b"more figures", "tests.txt": b"passed"}


@pytest.mark.slow
def test_tests_that_take_too_long_still_say_what_failed(gpu_run, tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(
        "import pytest, time\npytestmark = pytest.mark.gpu\n"
        "def test_fails():\n    assert 1 == 2, 'so it is'\n"
        "def test_never_ends():\n    time.sleep(300)\n"
    )
    (tmp_path / "tests" / "test_other.py").write_text("import no_such_library\n")
    monkeypatch.setattr(gpu_run, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_run, "surroundings", lambda: dict(gpu_run.environ))
    (tmp_path / "out").mkdir()
    args = gpu_run.Arguments(tests_minutes=0.4)
    gpu_run.test(args, tmp_path / "out", gpu_run.Clock(1))
    said = (tmp_path / "out" / "tests.txt").read_text()
    assert "so it is" in said and "no_such_library" in said and said.endswith("stopped after 0.4 minutes\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--minutes", 0), "--minutes expects a positive number, got 0.0"),
        (("--train", "recipes/none.py"), "--train expects a recipe and its flags, found no recipes/none.py"),
        (("--start", "nowhere"), "--start nowhere: no such folder"),
    ],
)
def test_wrong_flags_are_refused(gpu_run, tmp_path, capsys, words, expected):
    assert call(gpu_run, "--out", tmp_path / "out", *words) == 2
    assert capsys.readouterr().err == f"gpu_run.py: error: {expected}\n"
    assert not (tmp_path / "out").exists()

"""All that wants a GPU, in one command of limited time: tests, benchmark, and training with what is left of it.

    python benchmarks/gpu_run.py --out results --minutes 10 \\
        --train 'recipes/ljspeech/train_waveglow.py --data DIR --preset small --precision bf16-mixed --batch-size 32'
    python benchmarks/gpu_run.py --out more --start results --minutes 10 --train '...'    # goes on, there or elsewhere

In --out, as it comes: tests.txt, gpu.csv and gpu.md, which are gathered in reports.tar when a training begins, and the
state of the training in files of --part-megabytes, packed anew at every checkpoint. So whatever ends the process loses
little, and few files have to be carried; SIGTERM ends it in good order. With --start a later call goes on with both
where the files say; the run's own folder (--run), where it is still there, comes first.
"""

import io
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from os import environ
from pathlib import Path
from typing import Literal

from waveflow.atomic import write_whole
from waveflow.cli import parse_arguments, run_command
from waveflow.errors import InputError
from waveflow.training.packed_state import pack_state, unpack_state
from waveflow.training.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
POLL = 2.0  # seconds between looks for a new checkpoint
TO_STOP = 60.0  # seconds that a training is given to save itself
REPORTS = ("tests.txt", "gpu.csv", "gpu.md")
TO_REPORT = 10.0  # seconds that tests are given to say what has failed


@dataclass(frozen=True)
class Arguments:
    """Run tests, benchmark and training on a GPU for so many minutes.

    Args:
        out: Folder for what comes of it.
        minutes: For all of it.
        start: --out of an earlier call, to go on from.
        tests_minutes: For the tests marked gpu, at most; 0 for none.
        benchmark_minutes: For benchmarks/gpu.py, at most; 0 for none.
        train: Recipe and flags, but for --out, --steps, --device and --resume; empty for no training.
        steps: Of the training, if time lasts.
        run: Folder of the training.
        light: Keep only the averaged weights of the training.
        part_megabytes: Size of a file of the training's state.
        device: cpu with --tiny rehearses it.
        tiny: The benchmark's small models.
    """

    out: str = "results"
    minutes: float = 10.0
    start: str | None = None
    tests_minutes: float = 3.0
    benchmark_minutes: float = 4.0
    train: str = ""
    steps: int = 1_000_000
    run: str = "runs/gpu-run"
    light: bool = False
    part_megabytes: float = 16.5
    device: Literal["cuda", "cpu"] = "cuda"
    tiny: bool = False

    def __post_init__(self):
        for name in ("minutes", "part_megabytes"):
            if not getattr(self, name) > 0:
                raise InputError(f"--{name.replace('_', '-')} expects a positive number, got {getattr(self, name)}")
        if self.train and not (ROOT / shlex.split(self.train)[0]).is_file():
            raise InputError(f"--train expects a recipe and its flags, found no {shlex.split(self.train)[0]}")
        if self.start is not None and not Path(self.start).is_dir():
            raise InputError(f"--start {self.start}: no such folder")


class Clock:
    """Time that is left.

    Args:
        minutes: in all.
    """

    def __init__(self, minutes: float):
        self._end = time.monotonic() + 60 * minutes

    def left(self) -> float:
        """Seconds, 0 or more."""
        return max(0.0, self._end - time.monotonic())


def python(*words: object) -> list[str]:
    return [sys.executable, "-u", *map(str, words)]


def surroundings() -> dict[str, str]:
    """The environment, with this repository's package."""
    return environ | {"PYTHONPATH": ":".join(filter(None, [str(ROOT), environ.get("PYTHONPATH")]))}


def test(args: Arguments, out: Path, clock: Clock) -> None:
    """The tests marked gpu; what they print goes to tests.txt."""
    # Files that cannot be imported, for want of a library that other tests need, are told of and hold up none.
    flags = ("-m", "gpu", "-q", "-rs", "--durations=5", "--continue-on-collection-errors", "-p", "no:cacheprovider")
    with open(out / "tests.txt", "w") as file:
        words = python("-m", "pytest", *flags, ROOT / "tests")
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background, and so it would be there
            signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(words, cwd=ROOT, env=surroundings(), stdout=file, stderr=file)
        try:
            said = f"exit code {process.wait(min(60 * args.tests_minutes, clock.left()))}"
        except subprocess.TimeoutExpired:
            said = f"stopped after {args.tests_minutes:g} minutes"
        finally:
            end(process, signal.SIGINT, TO_REPORT)
        file.write(f"{said}\n")
    print(f"tests: {said}", flush=True)


def measure(args: Arguments, out: Path, clock: Clock) -> None:
    """benchmarks/gpu.py, going on where an earlier one was."""
    if args.start:
        for name, content in reports(Path(args.start)).items():
            if name != "tests.txt" and not (out / name).exists():
                write_whole(out / name, content)
    minutes = min(args.benchmark_minutes, clock.left() / 60)
    words = ["--out", out, "--device", args.device, "--minutes", minutes, "--resume", *(["--tiny"] * args.tiny)]
    process = subprocess.Popen(python(ROOT / "benchmarks" / "gpu.py", *words), env=surroundings())
    try:
        # its own limit is looked at between figures, and soon after it they are broken off where Python can do so
        process.wait(min(60 * minutes + 30, clock.left()))
    except subprocess.TimeoutExpired:
        print("benchmark: cut off", flush=True)
    finally:
        end(process, signal.SIGTERM, 1.0)


def reports(folder: Path) -> dict[str, bytes]:
    """What tests and benchmark left there, by name, be it packed or not."""
    found = {}
    if (folder / "reports.tar").exists():
        with tarfile.open(folder / "reports.tar") as archive:
            found = {member.name: archive.extractfile(member).read() for member in archive}
    return found | {name: (folder / name).read_bytes() for name in REPORTS if (folder / name).exists()}


def gather(folder: Path) -> None:
    """Make one file of the reports, if there are any."""
    found, content = reports(folder), io.BytesIO()
    if not found:
        return
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, text in found.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    write_whole(folder / "reports.tar", content.getvalue())
    for name in REPORTS:
        (folder / name).unlink(missing_ok=True)


def end(process: subprocess.Popen, signum: int, grace: float) -> None:
    """Have a process end, if it has not: by a signal, or where that is of no avail for so many seconds by force."""
    if process.poll() is None:
        process.send_signal(signum)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def train(args: Arguments, out: Path, clock: Clock) -> None:
    """A recipe until the time is over, its state packed at every checkpoint."""
    run = RunFolder(args.run)
    if not any(run.checkpoints.glob("step-*")) and args.start and (Path(args.start) / "state.json").exists():
        print(f"training: from step {unpack_state(Path(args.start), run)} of {args.start}", flush=True)
    resume = any(run.checkpoints.glob("step-*"))
    recipe, *flags = shlex.split(args.train)
    words = [*flags, "--out", run.path, "--steps", args.steps, "--device", args.device, *(["--resume"] * resume)]
    process = subprocess.Popen(python(ROOT / recipe, *words), env=surroundings())
    packed = None
    try:
        while process.poll() is None and clock.left() > TO_STOP:
            time.sleep(min(POLL, clock.left()))
            packed = keep(run, args, out, packed)
    finally:
        end(process, signal.SIGTERM, TO_STOP)  # saves before it leaves
        keep(run, args, out, packed)
    if process.returncode not in (0, 128 + signal.SIGTERM, -signal.SIGTERM):  # the last: before its first step
        raise InputError(f"the training ended with exit code {process.returncode}; it says above why")


def keep(run: RunFolder, args: Arguments, out: Path, packed: str | None) -> str | None:
    """Pack the newest checkpoint, unless it is the one that was packed last; its name."""
    newest = max((path.name for path in run.checkpoints.glob("step-*.safetensors")), default=None)
    if newest is not None and newest != packed:
        step = pack_state(run, out, round(1e6 * args.part_megabytes), args.light)
        print(f"training: step {step} is in {out}", flush=True)
    return newest


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))  # through what ends the processes
    clock, out = Clock(args.minutes), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if args.tests_minutes > 0:
        test(args, out, clock)
    if args.benchmark_minutes > 0:
        measure(args, out, clock)
    if args.train and clock.left() > TO_STOP:
        gather(out)
        train(args, out, clock)
    files = sorted(out.iterdir())
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{out}: {', '.join(file.name for file in files)}; {len(files)} files, {size:.1f} MB", flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main, "gpu_run.py"))

"""Train the models of images that the README's tables are about, several at once, in as many sittings as it takes.

    python recipes/train_images.py --data DATA --out runs/images --minutes 9 --only [mnist-realnvp, mnist-glow]
    python recipes/train_images.py --data DATA --out runs/images --minutes 9       # again: every run goes on
    python recipes/train_images.py --tiny --device cpu --minutes 1                 # a rehearsal without data

DATA holds the folders mnist, cifar10 and faces_smile. Each run is a recipe's own command, which is printed; all run
side by side on one device, since a small model leaves most of a GPU idle. When the time is over they are told to stop,
save, and are then tested. Where a sitting ends with its machine, --pack writes what is needed to go on into a few
files, and --unpack lays it out again.
"""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from run_parts import pack, unpack

from waveflow.cli import parse_arguments, run_command
from waveflow.errors import InputError

ROOT = Path(__file__).parents[1]
GRACE = 60.0  # seconds to save in
REPORT = 180.0  # seconds that a report may take


@dataclass(frozen=True)
class Plan:
    """A command of the project, and what it is rehearsed with."""

    script: str
    folder: str
    words: str
    tiny: str


_GLOW = "--fields.steps 16 --fields.hidden 256"  # at most 8 MB in bfloat16
_TINY_GLOW = "--fields.steps 1 --fields.hidden 4"
_TINY_PIXELS = "--fields {hidden: 6, layers: 1, first_kernel: 3}"
_TINY_REALNVP = "--fields {blocks: 1, hidden: 2, levels: 1}"
_MNIST, _CIFAR, _FACES = "--data mnist", "--data cifar10 --flips", "--data faces --flips"
PLANS = {
    "mnist-realnvp": Plan(
        "recipes/mnist/train_realnvp.py", "mnist", f"{_MNIST} --preset mnist --batch-size 128", _TINY_REALNVP
    ),
    "mnist-glow": Plan(
        "recipes/mnist/train_glow.py", "mnist", f"{_MNIST} --preset mnist {_GLOW} --batch-size 128", _TINY_GLOW
    ),
    "mnist-glow-variational": Plan(
        "recipes/mnist/train_glow.py",
        "mnist",
        f"{_MNIST} --preset mnist {_GLOW} --batch-size 128 --dequantisation variational",
        f"{_TINY_GLOW} --dequantisation variational",
    ),
    "mnist-pixelcnn": Plan(
        "recipes/mnist/train_pixelcnn.py",
        "mnist",
        f"{_MNIST} --binary --model plain --batch-size 64",
        f"{_TINY_PIXELS} --binary --model plain",
    ),
    "mnist-gated-pixelcnn": Plan(
        "recipes/mnist/train_pixelcnn.py",
        "mnist",
        f"{_MNIST} --binary --model gated --batch-size 64",
        f"{_TINY_PIXELS} --binary --model gated",
    ),
    "cifar10-glow": Plan(
        "recipes/cifar10/train_glow.py",
        "cifar10",
        f"{_CIFAR} --preset cifar10 {_GLOW} --batch-size 64",
        f"{_TINY_GLOW} --size 8",
    ),
    "cifar10-normflows-glow": Plan(
        "benchmarks/train_normflows_glow.py",
        "cifar10",
        f"{_CIFAR} --preset cifar10 {_GLOW} --batch-size 64",
        f"{_TINY_GLOW} --size 8",
    ),
    "cifar10-realnvp": Plan(
        "recipes/cifar10/train_realnvp.py",
        "cifar10",
        f"{_CIFAR} --preset cifar10 --batch-size 64",
        f"{_TINY_REALNVP} --size 8",
    ),
    "faces-glow": Plan(
        "recipes/faces/train_glow.py",
        "faces_smile",
        f"{_FACES} --preset faces64 --memory invert --batch-size 256",
        f"{_TINY_GLOW} --size 16 --memory invert",
    ),
}


@dataclass(frozen=True)
class Arguments:
    """Train the image models side by side for a given time, and go on with them another time.

    Args:
        data: Folder with the folders mnist, cifar10 and faces_smile.
        out: Folder of the runs, each in its own.
        only: Which of them, as [mnist-glow, faces-glow]; all of them otherwise.
        steps: Of every run in total, where the time does not end it before.
        minutes: Of training and validation, in this sitting; saving and testing come on top, some minutes.
        device: Where.
        seed: Of every run.
        validate_every: Steps between validations, each with a grid of samples.
        pack: Folder for what is needed to go on elsewhere.
        unpack: Folder that --pack wrote, laid out in --out before anything else.
        part_mib: Largest file of --pack.
        total_mib: All of them together; what no longer fits is left out, checkpoints first.
        tiny: Small models on images that come with scikit-learn.
    """

    data: str | None = None
    out: str = "runs/images"
    only: tuple[str, ...] = ()
    steps: int = 10**9
    minutes: float = 9.0
    device: Literal["cuda", "cpu"] = "cuda"
    seed: int = 0
    validate_every: int = 500
    pack: str | None = None
    unpack: str | None = None
    part_mib: int = 16
    total_mib: int = 60
    tiny: bool = False

    def __post_init__(self):
        if unknown := sorted(set(self.only) - set(PLANS)):
            raise InputError(f"--only expects some of {', '.join(PLANS)}, got {unknown[0]}")
        if not self.minutes > 0 or self.part_mib < 1 or self.total_mib < 1 or min(self.validate_every, self.steps) < 1:
            raise InputError("--minutes, --part-mib, --total-mib, --validate-every and --steps expect positive numbers")
        if self.data is None and not self.tiny:
            raise InputError("--data expects the folder with mnist, cifar10 and faces_smile")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))  # through what ends and packs the runs
    out, names = Path(args.out), args.only or tuple(PLANS)
    if args.unpack:
        unpack(Path(args.unpack), out)
    out.mkdir(parents=True, exist_ok=True)
    processes = {name: start(name, args) for name in names}
    try:
        wait(processes.values(), time.monotonic() + 60 * args.minutes)
    finally:
        stop(processes.values())
        carry(args, names)  # at once: the reports may be cut short
    stopped = {name for name, process in processes.items() if process.returncode == 128 + signal.SIGTERM}
    failed = {name for name, process in processes.items() if process.returncode and name not in stopped}
    reports = {name: start(name, args, report=True) for name in names if name in stopped}
    try:
        wait(reports.values(), time.monotonic() + REPORT)
    finally:
        stop(reports.values())
    failed |= {name for name, process in reports.items() if process.returncode}
    for name in names:
        print(f"{name}: {said_of(out / name, name in failed)}", flush=True)
    if left_out := carry(args, names):
        print(f"for want of room not in {args.pack}: {', '.join(left_out)}")
    if failed:
        raise InputError(
            f"{', '.join(sorted(failed))} failed, or had no time to begin: the ends of their logs in {out} say why"
        )


def carry(args: Arguments, names: Sequence[str]) -> list[str]:
    """Write --pack, if it was asked for; what had no room in it."""
    if not args.pack:
        return []
    runs = [Path(args.out) / name for name in names]
    return pack(runs, Path(args.pack), args.part_mib << 20, args.total_mib << 20)


def command(name: str, args: Arguments, report: bool) -> list[str]:
    """The recipe's command line; for a report, of a run that has had all its steps."""
    plan, run = PLANS[name], (Path(args.out) / name).absolute()
    words = [
        sys.executable,
        str(ROOT / plan.script),
        "--out",
        str(run),
        "--device",
        args.device,
        "--seed",
        str(args.seed),
    ]
    words += ["--validate-every", str(args.validate_every), "--save-every", str(args.validate_every)]
    if args.tiny:
        words += [*_words(plan.tiny), "--batch-size", "8", "--validate-images", "10", "--samples", "4"]
        words += ["--test-images", "10"]
    else:
        words += [
            *_words(plan.words),
            "--path",
            str((Path(args.data) / plan.folder).absolute()),
            "--validate-images",
            "0",
        ]
    words += ["--steps", "1" if report else str(args.steps)]
    return words + (["--resume"] if report or any((run / "checkpoints").glob("step-*.safetensors")) else [])


def _words(text: str) -> list[str]:
    """Words of a plan, which has no quotes: a value in braces is one word."""
    head, brace, tail = text.partition("{")
    if not brace:
        return shlex.split(text)
    value, _, rest = tail.partition("}")
    return [*shlex.split(head), "{" + value + "}", *shlex.split(rest)]


def start(name: str, args: Arguments, report: bool = False) -> subprocess.Popen:
    """The recipe as a process of its own, what it says in ``NAME.log`` beside its folder."""
    words = command(name, args, report)
    print(f"{'testing' if report else 'training'}: {shlex.join(words[1:])}", flush=True)
    with open(Path(args.out) / f"{name}.log", "a") as log:
        return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)


def wait(processes: Collection[subprocess.Popen], end: float) -> None:
    """Until all have ended, or the time has come."""
    while time.monotonic() < end and any(process.poll() is None for process in processes):
        time.sleep(0.2)


def stop(processes: Collection[subprocess.Popen]) -> None:
    """Ask those that still run to save and leave; those that do not are killed."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    wait(processes, time.monotonic() + GRACE)
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


def said_of(run: Path, failed: bool) -> str:
    """The figures of a run in words."""
    test = run / "logs" / "test.json"
    if failed or not test.exists():
        return "failed" if failed else "not tested"
    found = json.loads(test.read_text())
    bound = "exact" if found["exact"] else "bound"
    said = f"{found['bits_per_dim']:.4f} bits/dim ({bound}) on {found['test_images']:,} test images"
    return f"{said}, step {found['tested_step']:,} of {found['steps']:,}, {found['parameters']:,} parameters"


if __name__ == "__main__":
    sys.exit(run_command(main, "train_images.py"))

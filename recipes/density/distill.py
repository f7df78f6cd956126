"""Distil a density that draws slowly into one that draws in one pass: a MAF into an IAF, without looking at data."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import train
from density_pictures import draw_densities, draw_pairs
from torch import Tensor

from waveflow.atomic import write_whole
from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.data import Table, load_table
from waveflow.distillation import (
    DivergenceWatch,
    Steps,
    Student,
    annealed,
    annealing_weight,
    corresponds,
    estimate_kl,
    load_teacher,
    pairs_loss,
    require_match,
    reverse_kl,
)
from waveflow.distributions import Flow, StandardNormal
from waveflow.errors import InputError
from waveflow.models import IAF, SplineIAF, VectorFlow
from waveflow.threads import use_threads
from waveflow.training import Trainer, TrainerConfig

_PAIRS = 1000  # steps
_VALIDATION_DRAWS, _REPORT_DRAWS = 5_000, 50_000


@dataclass(frozen=True)
class Arguments:
    """Distil a density; without any flag, a MAF of two moons, which is trained first, in minutes on a CPU.

    Args:
        teacher: Folder of a run of train.py with maf or nsf-ar (default: a MAF is trained first, into OUT/teacher).
        student: iaf, whose layers scale and shift and can be the teacher's turned round, or spline, whose layers bend
            by splines.
        data: What the teacher was trained on, for its test rows only; as in train.py (default: what the teacher's run
            says; without a teacher moons).
        path: File of power or miniboone.
        drop_nan: Leave out rows with values that are not finite.
        dequantise: Add uniform noise to columns in which few values recur.
        layers: Layers of the student (default: iaf as many as the teacher; spline 4).
        hidden: Widths of the hidden layers of each network, as [128, 128].
        activation: Of the networks; smooth ones follow a teacher better.
        bins: Bins of a spline.
        bound: Where splines end, in standard deviations.
        teacher_steps: Optimizer steps of a teacher that is trained first (default: those of train.py).
        teacher_activation: Of the networks of a teacher that is trained first; smooth ones are easier to follow.
        steps: Optimizer steps of the student in total, those of --pairs included.
        pairs: Steps at first that are regression on what the teacher makes of noise, by layers where the student is
            the teacher turned round (iaf of maf, as many layers), else by draws (default: 1000; with --anneal 0).
        pairs_weight: Of the same regression beside the divergence in the steps that follow; 0 for none. By layers it
            keeps rare rows, which reverse KL, seeing only what the student draws, would let go of; by draws alone it
            gains nothing (default: 1 by layers, else 0).
        draws: Draws of the student per step, on each process.
        anneal: Steps over which the goal moves from a normal distribution to the teacher; 0 for none. Without it the
            student that was not begun by --pairs may settle on some of several modes that lie apart, as in power.
        learning_rate: Of Adam, after a linear warm-up; falls with the square of the step from step 1500 on.
        out: Folder of the run (default: runs/distill-STUDENT-DATA, with a number where that holds one).
        device: auto takes a CUDA GPU where there is one; the teacher is put there too.
        threads: CPU threads of PyTorch.
        seed: Of everything random but the division of the table, which never changes.
        resume: Continue the run in --out (default: the last one).
        validate_every: Steps between estimates of the divergence, each with a picture; 0 for one before and one after
            training only.
        save_every: Steps between checkpoints; 0 for one at the end only.
    """

    teacher: str | None = None
    student: Literal["iaf", "spline"] = "iaf"
    data: str | None = None
    path: str | None = None
    drop_nan: bool = False
    dequantise: bool = False
    layers: int | None = None
    hidden: tuple[int, ...] = (256, 256)
    activation: Literal["relu", "silu", "tanh"] = "silu"
    bins: int = 8
    bound: float = 5.0
    teacher_steps: int | None = None
    teacher_activation: Literal["relu", "silu", "tanh"] = "silu"
    steps: int = 2500
    pairs: int | None = None
    pairs_weight: float | None = None
    draws: int = 1024
    anneal: int = 0
    learning_rate: float = 1e-3
    out: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    seed: int = 0
    resume: bool = False
    validate_every: int = 500
    save_every: int = 500


def build(args: Arguments, features: int, teacher: VectorFlow | None = None) -> VectorFlow:
    """The model of ``--student`` for so many features, with as many layers as the teacher where that is to be."""
    fields = {"features": features, "hidden": args.hidden, "activation": args.activation}
    if args.student == "iaf":
        found = getattr(getattr(teacher, "config", None), "layers", 5)
        return IAF(**fields, layers=found if args.layers is None else args.layers)
    return SplineIAF(**fields, layers=4 if args.layers is None else args.layers, bins=args.bins, bound=args.bound)


def name_of_data(args: Arguments) -> str:
    """``--data``, or what the teacher's run says it was trained on."""
    if args.data is not None or args.teacher is None:
        return args.data or "moons"
    record = Path(args.teacher) / "logs" / "test.json"
    try:
        return json.loads(record.read_text())["data"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"--data is needed: {args.teacher} does not say what it was trained on") from None


def find_run(args: Arguments, data: str) -> tuple[str | Path, bool]:
    """The folder of the run, and whether to resume: where its teacher was stopped, there is no student to resume."""
    name = f"distill-{args.student}-{Path(data).stem}"
    out = Path(args.out or default_out(name))
    if any((out / "teacher" / "checkpoints").glob("*")) and not any((out / "checkpoints").glob("*")):
        return out, False
    return args.out or default_out(name, args.resume), args.resume


def train_teacher(args: Arguments, data: str, folder: Path) -> None:
    """A MAF by train.py, unless it is there; what was begun is continued."""
    if (folder / "logs" / "test.json").exists():
        return
    settings = {"data": data, "path": args.path, "steps": args.teacher_steps, "out": folder}
    settings["activation"] = args.teacher_activation
    settings |= {name: getattr(args, name) for name in ("device", "threads", "seed")}
    words = [f"--{name}={value}" for name, value in settings.items() if value is not None]
    switches = {"drop-nan": args.drop_nan, "dequantise": args.dequantise}
    words += [f"--{name}" for name, on in switches.items() if on]
    words += ["--resume"] if any((folder / "checkpoints").glob("*")) else []
    print("a teacher first:", flush=True)
    train.main(words)
    print("now the student:", flush=True)


def check(teacher: VectorFlow, model: VectorFlow, table: Table) -> None:
    """Refuse a teacher of other rows than the table's, or that wants a context."""
    if not isinstance(teacher, VectorFlow):
        raise InputError(f"--teacher expects a flow of vectors, got a {type(teacher).__name__}")
    if teacher.config.features != len(table.columns):
        raise InputError(
            f"--teacher is of {teacher.config.features} columns, {table.name} has {len(table.columns)}: "
            "--data names what it was trained on"
        )
    require_match(model, teacher)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    use_threads(args.threads)
    for name, least in {"draws": 1, "anneal": 0, "pairs": 0, "pairs_weight": 0}.items():
        if (given := getattr(args, name)) is not None and given < least:
            raise InputError(f"--{name.replace('_', '-')} expects at least {least}, got {given}")
    if args.pairs and args.anneal:
        raise InputError(
            f"--pairs and --anneal are two ways to begin, got {args.pairs} and {args.anneal} steps of them"
        )
    pairs = args.pairs if args.pairs is not None else 0 if args.anneal else _PAIRS
    if args.teacher is None and os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError("--teacher is needed with several processes: train it by train.py first")
    data = name_of_data(args)
    table = load_table(data, args.path, args.drop_nan, args.dequantise)
    features = len(table.columns)
    build(args, features)  # what cannot be built is said before anything is made
    if args.teacher is not None:
        given = load_teacher(args.teacher)
        check(given, build(args, features, given), table)

    out, resume = find_run(args, data)
    trainer = Trainer(
        TrainerConfig(
            out=out,
            steps=args.steps,
            batch_size=1,
            learning_rate=args.learning_rate,
            warmup_steps=50,
            decay_after=1500,
            decay_power=2.0,
            clip_norm=20.0,
            ema_decay=0.995,
            device=args.device,
            seed=args.seed,
            resume=resume,
            validate_every=args.validate_every,
            save_every=args.save_every,
        )
    )
    if args.teacher is None:
        train_teacher(args, data, trainer.folder.path / "teacher")
    teacher = load_teacher(args.teacher or trainer.folder.path / "teacher", trainer.device)
    torch.manual_seed(args.seed)  # whether a teacher was trained before, or how far, changes no student
    student = Student(build(args, features, teacher))
    student.model.bijector[0].load_state_dict(teacher.bijector[0].state_dict())  # the same units
    start = Flow(StandardNormal(), teacher.bijector[0], (features,))
    watch = DivergenceWatch(trainer.folder.path, save_every=args.save_every)

    beside = float(corresponds(student.model, teacher)) if args.pairs_weight is None else args.pairs_weight

    def objective(student: torch.nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        begun = batch["step"] >= pairs
        pairs_weight = beside if begun and pairs else float(not begun)
        weight = annealing_weight(batch["step"], args.anneal)
        nothing = torch.zeros((), device=trainer.device)

        def lesson(flow: Flow) -> Tensor:
            z = torch.randn(args.draws, features, device=trainer.device) if pairs_weight else None
            of_pairs = pairs_loss(flow, teacher, z) if pairs_weight else nothing
            goal = annealed(teacher, start, weight)
            return torch.stack([of_pairs, reverse_kl(flow, goal, draws=args.draws).mean() if begun else nothing])

        of_pairs, kl = student(lesson=lesson)
        seen = {"pairs": of_pairs.detach()} if pairs_weight else {}
        if begun:
            seen |= {"nats_per_dim": kl.detach() / features, "teacher_weight": torch.tensor(weight)}
            if weight == 1:
                watch(kl.item() / features, batch["step"])
        return {"loss": pairs_weight * of_pairs + kl, **seen}

    def generator() -> torch.Generator:
        return torch.Generator(trainer.device).manual_seed(args.seed)

    def validate(student: Student) -> dict[str, float]:
        found = estimate_kl(student, teacher, draws=_VALIDATION_DRAWS, generator=generator())
        return {"kl_per_dim": found.per_dim, "kl_per_dim_error": found.per_dim_error}

    def sample(student: Student, log) -> None:
        count = max(len(table.test), 1000)
        ours, theirs = (flow.sample((count,), generator=generator()) for flow in (student.model, teacher))
        path = log.samples / f"step-{log.step:08d}.png"
        if features == 2:
            flows = {"teacher": (teacher, theirs), "student": (student.model, ours)}
            draw_densities(path, flows, table.test.to(trainer.device))
        elif features > 1:
            draw_pairs(path, theirs, ours, table.columns, labels=("draws of the teacher", "draws of the student"))

    state = trainer.fit(
        student,
        objective,
        Steps(),
        validate=validate,
        sample=sample,
        show=["loss", "nats_per_dim"],
    )

    # The figures to report are those of the model that was written, and of draws it has not been trained by.
    if trainer.rank == 0:
        model = VectorFlow.from_pretrained(trainer.folder.path, trainer.device)
        after = estimate_kl(model, teacher, draws=_REPORT_DRAWS, generator=generator())
        nats = {name: nats_of(flow, table.test) for name, flow in (("teacher", teacher), ("student", model))}
        report = {
            "data": table.name,
            "teacher": type(teacher).__name__,
            "student": type(model).__name__,
            "steps": state.step,
            "kl_per_dim_before": state.before["kl_per_dim"],
            "kl_per_dim_before_standard_error": state.before["kl_per_dim_error"],
            "kl_per_dim": after.per_dim,
            "kl_per_dim_standard_error": after.per_dim_error,
            "kl": after.mean,
            "kl_standard_error": after.error,
            "test_rows": len(table.test),
            **{f"{name}_{figure}": value for name in nats for figure, value in nats[name].items()},
        }
        write_whole(trainer.folder.logs / "test.json", (json.dumps(report, indent=2) + "\n").encode())
        print(
            f"KL(student || teacher): {state.before['kl_per_dim']:.4g} ± {state.before['kl_per_dim_error']:.2g} -> "
            f"{after.per_dim:.4f} ± {after.per_dim_error:.4f} nats a dimension"
        )
        for name, found in nats.items():
            print(f"test under the {name}: {found['nats']:.3f} ± {found['standard_error']:.3f} nats a row")
        folder = trainer.folder
        print(f"model: {folder.path}   figures: {folder.logs / 'test.json'}   pictures: {folder.samples}")


@torch.no_grad()
def nats_of(model: VectorFlow, rows: Tensor) -> dict[str, float]:
    """Mean log-density of rows, in their own units, and its standard error."""
    device = next(model.parameters()).device
    found = torch.cat([model.log_prob(part.to(device)).double().cpu() for part in rows.split(1000)])
    return {"nats": found.mean().item(), "standard_error": found.std().item() / math.sqrt(len(found))}


if __name__ == "__main__":
    sys.exit(run_command(main, "distill.py"))

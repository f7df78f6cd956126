"""Distil a masked-convolution flow, which draws number by number, into its like turned round: one pass a draw."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from waveflow.atomic import write_whole
from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.data import Images, ImageSet
from waveflow.distillation import (
    DivergenceWatch,
    Steps,
    Student,
    estimate_kl,
    load_teacher,
    pairs_loss,
    require_match,
    reverse_kl,
)
from waveflow.distributions import Flow, image_likelihood
from waveflow.errors import InputError
from waveflow.evaluation.image_likelihood import image_likelihood_of
from waveflow.images import image_grid, save_grid
from waveflow.models import ImageFlow, MaskedConvFlow, MaskedConvIAF
from waveflow.threads import use_threads
from waveflow.training import Trainer, TrainerConfig
from waveflow.training.image_arguments import ImageArguments
from waveflow.training.image_data import path_of, read_images, some
from waveflow.training.image_grids import draw, grid_layout
from waveflow.training.image_run import ImageRun

_VALIDATION_DRAWS, _REPORT_DRAWS, _CLASSED_DRAWS, _TIMED_DRAWS = 500, 5_000, 4_000, 64
_TEACHERS_RATE = 1e-3
_FROM_THE_TEACHER = ("channels", "height", "width", "values", "classes")


@dataclass(frozen=True)
class Arguments(ImageArguments):
    """Distil a flow of digits; without any flag, of the small ones inside scikit-learn, in minutes on a CPU.

    Args:
        teacher: Folder of a run with a MaskedConvFlow (default: one is trained first, into OUT/teacher).
        teacher_steps: Optimizer steps of a teacher that is trained first.
        data: What the teacher was trained on; the student sees none of it, but is tested on it.
        preset: Of a teacher that is trained first (default: digits for the small ones, otherwise mnist).
        fields: Fields in which the student differs from its teacher, as in --fields.hidden 40; first_kernel does unless
            given, so that the whole image is seen.
        steps: Optimizer steps of the student in total, those of --pairs included.
        pairs: Steps at first that are regression on what the teacher makes of noise, by layers where the student is
            the teacher turned round (as many maps, whatever their networks), else by draws.
        pairs_weight: Of the same regression beside the divergence in the steps that follow; 0 for none. The more, the
            fewer digits are forgotten, and the higher the divergence stays.
        batch_size: Draws of the student per step, on each process; images per step for the teacher.
        learning_rate: Of Adam, after a linear warm-up; falls with the step to the power of 1.5 from step 500 on. A
            teacher that is trained first has one of its own.
        test_images: How many test images both are tested on; 0 for all. The student's density is solved for.
        validate_every: Steps between estimates of the divergence, each with a grid of draws of both; 0 for one before
            and one after training only.
    """

    teacher: str | None = None
    teacher_steps: int = 1000
    steps: int = 2000
    pairs: int = 1600
    pairs_weight: float = 4.0
    learning_rate: float = 0.02
    test_images: int = 200

    def __post_init__(self):
        super().__post_init__()
        self._require_at_least(1, "batch_size", "teacher_steps")
        self._require_at_least(0, "pairs", "pairs_weight")


def find_run(args: Arguments) -> tuple[str | Path, bool]:
    """The folder of the run, and whether to resume: where its teacher was stopped, there is no student to resume."""
    name = f"distill-{Path(args.data).name}"
    out = Path(args.out or default_out(name))
    if any((out / "teacher" / "checkpoints").glob("*")) and not any((out / "checkpoints").glob("*")):
        return out, False
    return args.out or default_out(name, args.resume), args.resume


def train_teacher(args: Arguments, folder: Path) -> None:
    """A MaskedConvFlow by maximum likelihood, unless it is there; what was begun is continued."""
    if (folder / "logs" / "test.json").exists():
        return
    begun = any((folder / "checkpoints").glob("*"))
    own = dataclasses.replace(
        args,
        steps=args.teacher_steps,
        learning_rate=_TEACHERS_RATE,
        fields=None,
        out=str(folder),
        resume=begun,
        test_images=0,
    )
    print("a teacher first:", flush=True)
    ImageRun(own, MaskedConvFlow, teacher_preset(args), folder).fit(image_likelihood)
    print("now the student:", flush=True)


def teacher_preset(args: Arguments) -> str:
    """The preset of a teacher that is trained first."""
    return args.preset or ("digits" if args.data == "digits" else "mnist")


def teacher_fields(args: Arguments, images: ImageSet) -> dict[str, Any]:
    """Its configuration, by ``--preset`` and the images."""
    preset = teacher_preset(args)
    if preset not in MaskedConvFlow.PRESETS:
        raise InputError(f"--preset expects one of {', '.join(MaskedConvFlow.PRESETS)}, got {preset!r}")
    sizes = (*images.shape, images.values, len(images.classes))
    return {**MaskedConvFlow.PRESETS[preset], **dict(zip(_FROM_THE_TEACHER, sizes, strict=True))}


def student_fields(args: Arguments, teacher: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the teacher, but for ``--fields``, and a first convolution that sees the whole image.

    A pixel of the teacher's follows from drawn pixels nearby, which follow from the noise before *them*, and so on: a
    student has to see as far back as there is noise.
    """
    given = dict(args.fields or {})
    if own := sorted(set(given) & set(_FROM_THE_TEACHER)):
        raise InputError(
            f"--fields expects none of {', '.join(_FROM_THE_TEACHER)}, which are the teacher's, got {own[0]}"
        )
    whole = 2 * max(teacher["height"], teacher["width"]) - 1
    return {**teacher, "first_kernel": max(whole, teacher["first_kernel"]), **given}


def read_labelled(args: Arguments) -> Images | None:
    """Training images with labels, by which draws are told apart in the report; None where none are known."""
    if args.data not in ("digits", "mnist"):
        return None
    train = read_images(dataclasses.replace(args, conditional=True, path=path_of(args), download=False)).train
    return train if isinstance(train, Images) else None


def load(folder: str | Path, images: ImageSet, device: torch.device | str = "cpu") -> ImageFlow:
    """The teacher, if it is of such images."""
    teacher = load_teacher(folder, device)
    if not isinstance(teacher, MaskedConvFlow):
        raise InputError(f"{folder}: expected a MaskedConvFlow as teacher, got a {type(teacher).__name__}")
    theirs = (*teacher.image_shape, teacher.config.values, teacher.config.classes)
    ours = (*images.shape, images.values, len(images.classes))
    if theirs != ours:
        raise InputError(
            f"--teacher is of {_sizes(theirs)}, {images.name} of {_sizes(ours)}: --data names what it is of"
        )
    return teacher


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    use_threads(args.threads)
    if args.teacher is None and os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError("--teacher is needed with several processes: train it by a single one first")
    images = read_images(args)
    labelled = read_labelled(args)
    if args.teacher is None:
        fields = teacher_fields(args, images)
    else:
        fields = dataclasses.asdict(load(args.teacher, images).config)
    fields = student_fields(args, fields)
    MaskedConvIAF.make_config(**fields)

    out, resume = find_run(args)
    trainer = Trainer(
        TrainerConfig(
            out=out,
            steps=args.steps,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            warmup_steps=50,
            betas=(0.9, 0.99),  # a new objective begins amidst the run
            decay_after=500,
            decay_power=1.5,
            clip_norm=2.0,
            ema_decay=0.995,
            device=args.device,
            precision=args.precision,
            seed=args.seed,
            resume=resume,
            validate_every=args.validate_every,
            save_every=args.save_every,
        )
    )
    student = Student(MaskedConvIAF(**fields))
    if args.teacher is None:
        train_teacher(args, trainer.folder.path / "teacher")
    teacher = load(args.teacher or trainer.folder.path / "teacher", images, trainer.device)
    require_match(student, teacher, classes_of(teacher))
    size = teacher.flow.event_shape()
    dims = size[0] * size[1] * size[2]
    watch = DivergenceWatch(trainer.folder.path, save_every=args.save_every)

    def objective(student: torch.nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        classes, step = teacher.config.classes, batch["step"]
        context = None
        if classes:  # a class for each draw
            labels = torch.randint(classes, (args.batch_size,), device=trainer.device)
            context = F.one_hot(labels, classes).float()
        begun = step >= args.pairs
        weights = {"pairs": args.pairs_weight if begun else 1.0, "kl": float(begun)}

        def lesson(flow: Flow) -> Tensor:
            losses = {name: torch.zeros((), device=trainer.device) for name in weights}
            if weights["pairs"]:
                z = torch.randn(args.batch_size, *size, device=trainer.device)
                losses["pairs"] = pairs_loss(flow, teacher, z, context)
            if weights["kl"]:
                draws = args.batch_size if context is None else 1
                losses["kl"] = reverse_kl(flow, teacher, context, draws).mean()
            return torch.stack([losses[name] / dims for name in weights])

        found = dict(zip(weights, student(lesson=lesson), strict=True))
        if begun:
            watch(found["kl"].item(), step)
        seen = {f"{name}_per_dim": found[name].detach() for name in weights if weights[name]}
        return {"loss": sum(weights[name] * found[name] for name in weights), **seen}

    def estimate(model: ImageFlow, draws: int):
        context = classes_of(teacher)
        generator = torch.Generator(trainer.device).manual_seed(args.seed)
        draws = draws if context is None else max(2, draws // len(context))
        return estimate_kl(model.flow, teacher, context, draws, 250, generator)

    def validate(student: Student) -> dict[str, float]:
        found = estimate(student.model, _VALIDATION_DRAWS)
        return {"kl_per_dim": found.per_dim, "kl_per_dim_error": found.per_dim_error}

    shown: list[Tensor] = []  # the teacher's draws, which stay the same

    def sample(student: Student, log) -> None:
        try:
            shown[:] = shown or [draw(teacher, args.samples, args.temperature, args.seed)]
            both = side_by_side(shown[0], draw(student.model, args.samples, args.temperature, args.seed), images.values)
        except FloatingPointError as error:  # no reason to lose the run
            print(f"step {log.step}: no samples, {error}", flush=True)
            return
        layout = grid_layout(teacher) | {"columns": both[1]}
        save_grid(log.samples / f"step-{log.step:08d}.png", both[0], **layout)
        log.image("samples", image_grid(both[0], **layout))

    state = trainer.fit(
        student,
        objective,
        Steps(),
        validate=validate,
        sample=sample,
        show=["loss", "kl_per_dim"],
    )

    # The figures to report are those of the model that was written, and of draws it has not been trained by.
    if trainer.rank == 0:
        folder = trainer.folder
        model = MaskedConvIAF.from_pretrained(folder.path, trainer.device)
        after = estimate(model, _REPORT_DRAWS)
        test = some(images.test, args.test_images)
        report = {
            "data": images.name,
            "steps": state.step,
            "kl_per_dim_before": state.before["kl_per_dim"],
            "kl_per_dim_before_standard_error": state.before["kl_per_dim_error"],
            "kl_per_dim": after.per_dim,
            "kl_per_dim_standard_error": after.per_dim_error,
            "test_images": len(test),
        }
        speeds = {}
        for name, flow in (("teacher", teacher), ("student", model)):
            found = image_likelihood_of(flow, test, args.batch_size, args.seed)
            report[f"{name}_bits_per_dim"] = found.bits_per_dim
            report[f"{name}_bits_per_dim_standard_error"] = found.standard_error
            speeds[f"{name}_images_per_second"] = images_per_second(flow, args.seed)
        if labelled is not None:
            report |= compare_classes(teacher, model, labelled, args.seed)
        write_whole(folder.logs / "test.json", (json.dumps(report, indent=2) + "\n").encode())
        write_whole(folder.logs / "speed.json", (json.dumps(speeds, indent=2) + "\n").encode())
        print(
            f"KL(student || teacher): {state.before['kl_per_dim']:.4g} ± {state.before['kl_per_dim_error']:.2g} -> "
            f"{after.per_dim:.4f} ± {after.per_dim_error:.4f} nats a dimension"
        )
        for name in ("teacher", "student"):
            bits, error = report[f"{name}_bits_per_dim"], report[f"{name}_bits_per_dim_standard_error"]
            speed = speeds[f"{name}_images_per_second"]
            print(f"{name}: {bits:.3f} ± {error:.3f} bits/dim on {len(test)} test images, {speed:,.0f} draws a second")
        if labelled is not None:
            distance, noise = report["class_distance"], report["class_distance_of_teacher_to_itself"]
            print(f"shares of the classes: student {distance:.3f} from the teacher, which is {noise:.3f} from itself")
        print(f"model: {folder.path}   figures: {folder.logs / 'test.json'}   pictures: {folder.samples}")


def classes_of(model: ImageFlow) -> Tensor | None:
    """Every class once, as the context of its flow; None where there are none."""
    classes = model.config.classes
    return torch.eye(classes, device=next(model.parameters()).device) if classes else None


def compare_classes(teacher: ImageFlow, student: ImageFlow, labelled: Images, seed: int) -> dict[str, Any]:
    """Shares of the classes in draws of both, and the total variation between them: what a student left out.

    A draw is of the class of the training image that is nearest. Other draws of the teacher say what chance alone does.
    """
    found = {}
    for name, flow, own in (("teacher", teacher, seed), ("student", student, seed), ("again", teacher, seed + 1)):
        parts = [draw(flow, _CLASSED_DRAWS // 8, 1.0, 8 * own + part) for part in range(8)]
        found[name] = class_shares(torch.cat(parts), labelled)
    return {
        "class_draws": _CLASSED_DRAWS // 8 * 8,
        "teacher_class_shares": found["teacher"].tolist(),
        "student_class_shares": found["student"].tolist(),
        "class_distance": (found["student"] - found["teacher"]).abs().sum().item() / 2,
        "class_distance_of_teacher_to_itself": (found["again"] - found["teacher"]).abs().sum().item() / 2,
    }


def class_shares(draws: Tensor, labelled: Images) -> Tensor:
    """Share of each class in draws (N, C, H, W), by the nearest of images with labels, (classes,)."""
    known = labelled.images.flatten(1).float()
    nearest = torch.cat([torch.cdist(part, known).argmin(1) for part in draws.flatten(1).float().split(250)])
    counts = labelled.labels[nearest].bincount(minlength=int(labelled.labels.max()) + 1)
    return counts.double() / len(draws)


def side_by_side(left: Tensor, right: Tensor, values: int, columns: int = 8) -> tuple[Tensor, int]:
    """Two sets of images in one, with a bright column between them, and the columns of their grid."""
    count = len(left) - len(left) % columns or len(left)
    columns = min(columns, count)
    rows = [part[:count].unflatten(0, (-1, columns)) for part in (left, right)]
    rows.insert(1, torch.full_like(rows[0][:, :1], values - 1))
    return torch.cat(rows, 1).flatten(0, 1), 2 * columns + 1


def images_per_second(model: ImageFlow, seed: int) -> float:
    """Draws per second of wall time, in batches of 64."""
    rounds, begin = 0, time.perf_counter()
    while rounds == 0 or time.perf_counter() - begin < 1.0:
        draw(model, _TIMED_DRAWS, 1.0, seed)
        rounds += 1
    return rounds * _TIMED_DRAWS / (time.perf_counter() - begin)


def _sizes(sizes: tuple[int, ...]) -> str:
    channels, height, width, values, classes = sizes
    return f"{channels}x{height}x{width} images of {values} values with {classes} classes"


if __name__ == "__main__":
    sys.exit(run_command(main, "distill.py"))

"""Distil a WaveNet, which makes one sample after the other, into a student that makes all of them in one pass."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import train_wavenet
from torch import Tensor

from waveflow.atomic import write_whole
from waveflow.audio import MelSpectrogram, mel_image, mel_picture, write_audio
from waveflow.audio.metrics import STFT_RESOLUTIONS
from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.data import Batches, SpeechSegments, WholeClips, download_ljspeech, find_clips, split_clips
from waveflow.distillation import (
    DivergenceWatch,
    Steps,
    StudentObjective,
    TeacherCopies,
    TermWeights,
    VocoderStudent,
    load_teacher,
    shares_noise,
)
from waveflow.distillation.examination import Examination, synthesis_cost
from waveflow.errors import InputError
from waveflow.evaluation import choose_temperature
from waveflow.models import ParallelWaveNet, WaveNet
from waveflow.threads import use_threads
from waveflow.training import Trainer, TrainerConfig
from waveflow.training.run_log import RunLog
from waveflow.training.speech_arguments import SpeechArguments
from waveflow.training.speech_run import SAMPLES

# As published (ClariNet: arXiv:1807.07281): 500,000 steps of 8 segments.
PUBLISHED = {"halve_at": (200_000, 400_000), "ema_decay": 0.9999}
ROUND = 240  # batches that a teacher makes copies for, before they come again
FOR_A_CPU = {"betas": (0.9, 0.99), "warmup_steps": 50, "decay_after": 500}


@dataclass(frozen=True)
class Arguments(SpeechArguments):
    """Distil a student; without any flag, a small one of a small WaveNet, which is trained first, on a CPU.

    Args:
        teacher: Folder of a run of train_wavenet.py with a continuous head (default: preset tiny is trained first, into
            OUT/teacher). Mel, whitening and upsampler of the student are the teacher's.
        teacher_steps: Optimizer steps of a teacher that is trained first.
        preset: Size of the student: tiny, small, clarinet or parallel-wavenet.
        kl: Factor of the divergence from the teacher.
        penalty: Factor of the squared distance of log-scales; for Gaussian teachers and students.
        power: Factor of the power loss, against the recordings. Much of it raises the divergence: a draw of the
            teacher is at some distance from the recording, too.
        stft: Factor of the multi-resolution STFT loss, against the recordings.
        copies: Factor of the multi-resolution STFT loss against what the teacher makes of the same noise (default: 0.3
            for tiny and small where teacher and student start from the same noise, Gaussian or logistic; else 0).
        rounds: How often a batch comes where the teacher makes copies, which is slow; 1 for new ones at every step.
        contrastive: Factor of the divergence under another mel, which is subtracted; 0.3 as published.
        floor: Both log-scales are raised to at least this in the divergence, in waveform units (default: -7 for
            waveforms, none for whitened ones, whose scales are all near 1).
        draws: Draws of each step, where the divergence has no closed form.
        learning_rate: Learning rate of Adam (default: 1e-3, halved every 200,000 steps; for tiny and small 2e-3, after
            a linear warm-up, falling with the square root of the step).
        heard_seconds: How much of a held-out clip is examined.
        heard_draws: Copies of each held-out clip that are examined. One says little of small differences in F0.
        out: Folder of the run (default: runs/student-PRESET, with a number where that holds one).
    """

    teacher: str | None = None
    teacher_steps: int = 1000
    steps: int = 1000
    validate_every: int = 250
    validate_clips: int = 4
    kl: float = 1.0
    penalty: float = 4.0
    power: float = 0.1
    stft: float = 0.1
    copies: float | None = None
    rounds: int = 4
    contrastive: float = 0.0
    floor: float | None = None
    draws: int = 16
    heard_seconds: float = 3.0
    heard_draws: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.preset not in ParallelWaveNet.PRESETS:
            raise InputError(f"--preset expects one of {', '.join(ParallelWaveNet.PRESETS)}, got {self.preset!r}")
        if not self.heard_seconds > 0:
            raise InputError(f"--heard-seconds expects more than 0, got {self.heard_seconds}")
        if self.heard_draws < 1:
            raise InputError(f"--heard-draws expects at least 1, got {self.heard_draws}")
        if self.teacher is None and os.environ.get("WORLD_SIZE", "1") != "1":
            raise InputError("--teacher is needed with several processes: train it by train_wavenet.py first")
        if self.contrastive and self.batch_size < 2:
            raise InputError(f"--contrastive expects a --batch-size of at least 2, got {self.batch_size}")
        longest = max(n_fft for n_fft, _, _ in STFT_RESOLUTIONS)
        if self.rounds < 1:
            raise InputError(f"--rounds expects at least 1, got {self.rounds}")
        if (self.power or self.stft or self.copies) and self.segment <= longest // 2:
            raise InputError(
                f"--segment expects more than {longest // 2} samples, half a frame of the spectral losses, "
                f"got {self.segment}"
            )


def find_run(args: Arguments) -> tuple[str | Path, bool]:
    """The folder of the run, and whether to resume: where its teacher was stopped, there is no student to resume."""
    name = f"student-{args.preset}"
    out = Path(args.out or default_out(name))
    if any((out / "teacher" / "checkpoints").glob("*")) and not any((out / "checkpoints").glob("*")):
        return out, False
    return args.out or default_out(name, args.resume), args.resume


def train_teacher(args: Arguments, folder: Path) -> None:
    """A tiny WaveNet by train_wavenet.py, unless it is there; what was begun is continued."""
    done = folder / "logs" / "done"
    if done.exists():
        return
    words: dict[str, Any] = {"data": args.data, "steps": args.teacher_steps, "out": folder, "validate_every": 0}
    words |= {name: getattr(args, name) for name in ("device", "threads", "seed", "segment", "batch_size")}
    words["validate_clips"] = 2
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in words.items() if value is not None]
    print("a teacher first:", flush=True)
    train_wavenet.main([*flags, *(["--resume"] if any((folder / "checkpoints").glob("*")) else [])])
    write_whole(done, b"")
    print("now the student:", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    TermWeights(**factors(args))  # a wrong one is said before anything is made
    use_threads(args.threads)
    data = Path(args.data or SAMPLES)
    if not args.download:
        find_clips(data)  # a wrong --data is said before anything is made
    # So is a wrong --teacher, and one that has no copies for this student.
    found = WaveNet.from_preset("tiny") if args.teacher is None else load_teacher(args.teacher)
    begun = ParallelWaveNet.from_teacher(found, args.preset)
    if args.copies:
        TeacherCopies(found, begun)

    on_a_cpu = args.preset in ("tiny", "small")
    out, resume = find_run(args)
    shared = ("steps", "batch_size", "device", "precision", "seed", "validate_every", "save_every")
    trainer = Trainer(
        TrainerConfig(
            out=out,
            resume=resume,
            learning_rate=args.learning_rate or (2e-3 if on_a_cpu else 1e-3),
            clip_norm=10.0,
            **{name: getattr(args, name) for name in shared},
            **(FOR_A_CPU if on_a_cpu else PUBLISHED),
        )
    )
    if args.download:
        data = trainer.on_first(lambda: download_ljspeech(args.data or "data"))
        args = replace(args, data=str(data))
    if args.teacher is None:
        train_teacher(args, trainer.folder.path / "teacher")

    # The teacher's averaged weights, folded; they take no gradients, what the student drew does.
    source = load_teacher(args.teacher or trainer.folder.path / "teacher", trainer.device)
    torch.manual_seed(args.seed)
    model = ParallelWaveNet.from_teacher(source, args.preset).to(trainer.device)
    teacher: WaveNet = source.for_inference()
    config = model.mel_config
    floor = args.floor if args.floor is not None or model.config.whiten else -7.0
    if args.copies is None:
        args = replace(args, copies=0.3 if on_a_cpu and shares_noise(teacher, model) else 0.0)
    weights = TermWeights(**factors(args))
    objective = StudentObjective(teacher, model, weights, floor, args.draws)
    watch = DivergenceWatch(trainer.folder.path, save_every=args.save_every)

    train, held_out = split_clips(find_clips(data))
    segments = SpeechSegments(train, config, args.segment, args.seed)
    steps, copies = Steps(Batches(segments, args.batch_size, args.seed)), None
    if args.copies:
        steps = Steps(steps.batches, args.rounds, ROUND)
        copies = TeacherCopies(teacher, model, ROUND if args.rounds > 1 else 0, args.seed, trainer.rank)
    frames = max(1, round(args.heard_seconds * config.sample_rate / config.hop_length))
    heard = [
        beginning(clip, frames, config.hop_length)
        for clip in WholeClips(held_out[: args.validate_clips or None], config)
    ]
    if trainer.rank == 0:
        print(f"data: {data}, {len(segments)} clips to train on, {len(heard)} held out to evaluate", flush=True)
    examine = Examination(objective, heard, args.seed, args.heard_draws) if trainer.rank == 0 else None

    def loss(student: torch.nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        found = objective(student, copies(batch) if copies else batch)
        if "kl" in found:
            watch(found["kl"].item(), batch["step"])
        return found

    def validate(student: VocoderStudent) -> dict[str, float]:
        return examine(student.model)

    def sample(student: VocoderStudent, log: RunLog) -> None:
        mel_of = MelSpectrogram(config)
        for clip, ours, theirs in zip(heard, examine.ours, examine.theirs, strict=False):  # the first draws
            name = clip["name"].replace("/", "_")
            sounds = {"real": clip["waveform"], "teacher": theirs.clamp(-1, 1), "student": ours.clamp(-1, 1)}
            panels = [(who, mel_of(sound[None])[0]) for who, sound in sounds.items()]
            for who, sound in sounds.items():
                write_audio(log.samples / f"{name}-{who}.wav", sound, config.sample_rate)
            mel_picture(log.samples / f"{name}.png", panels, config)
            log.audio(f"student/{name}", sounds["student"], config.sample_rate)
            log.image(f"mels/{name}", mel_image(panels, config))

    def finish(student: VocoderStudent) -> None:
        few = WholeClips(train[:: -(-len(train) // 4)], config, progress=False)
        cut = [beginning(clip, frames, config.hop_length) for clip in few]
        chosen = choose_temperature(student.model, cut, seed=args.seed)
        student.model.config = replace(student.model.config, temperature=chosen)

    state = trainer.fit(
        VocoderStudent(model),
        loss,
        steps,
        validate=validate,
        sample=sample,
        finish=finish,
        show=[name for name in ("kl", "stft", "copies", "power") if getattr(weights, name)],
    )

    # The figures to report are those of the model that was written.
    if trainer.rank == 0:
        model = ParallelWaveNet.from_pretrained(trainer.folder.path, trainer.device)
        after, mel = examine(model), heard[0]["mel"][None].to(trainer.device)
        costs = {"teacher": synthesis_cost(teacher, mel), "student": synthesis_cost(model.for_inference(), mel)}
        report = {
            "steps": state.step,
            "terms": vars(weights),
            "floor": floor,
            "before": state.before,
            "student": after | {"temperature": model.config.temperature, "seconds_per_second": costs["student"]},
            "teacher": examine.teacher | {"seconds_per_second": costs["teacher"]},
            "speedup": costs["teacher"] / costs["student"],
        }
        text = json.dumps(report, indent=2).replace("NaN", "null")
        write_whole(trainer.folder.logs / "report.json", (text + "\n").encode())
        before, theirs = state.before, examine.teacher
        floored = "" if floor is None else f", log-scales raised to {floor:g}"
        print(
            f"KL(student || teacher): {before['kl']:.3f} -> {after['kl']:.3f} ± {after['kl_error']:.2g} nats a sample"
            f"{floored}"
        )
        titles = {"mstft": "M-STFT distance", "f0_frame_error": "F0 frame error", "f0_fine": "F0 error in Hz (fine)"}
        for figure, title in titles.items():
            print(
                f"{title} from the recordings: student {before[figure]:.3f} -> {after[figure]:.3f}, "
                f"teacher {theirs[figure]:.3f}; from a draw of the teacher: {before[f'{figure}_to_teacher']:.3f} -> "
                f"{after[f'{figure}_to_teacher']:.3f}, another draw of the teacher {theirs[f'{figure}_to_teacher']:.3f}"
            )
        print(f"voiced frames kept: student {after['voice_kept']:.2f}, teacher {theirs['voice_kept']:.2f}")
        print(f"seconds of work per second of audio: teacher {costs['teacher']:.3f}, student {costs['student']:.3f}")
        folder = trainer.folder
        print(f"model: {folder.path}   figures: {folder.logs / 'report.json'}   sounds: {folder.samples}")


def factors(args: Arguments) -> dict[str, float]:
    """Of the terms of the loss."""
    return {name: getattr(args, name) or 0.0 for name in TermWeights.__dataclass_fields__}


def beginning(clip: Mapping[str, Any], frames: int, hop: int) -> dict[str, Any]:
    """A clip cut to so many frames."""
    return {**clip, "waveform": clip["waveform"][: frames * hop], "mel": clip["mel"][:, :frames]}


if __name__ == "__main__":
    sys.exit(run_command(main, "distill_student.py"))

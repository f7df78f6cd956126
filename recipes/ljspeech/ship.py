"""Make a folder that can be shipped of a training run: rounded weights, measured again, with a card and sounds."""

import dataclasses
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from model_card import Measured, Training, model_card
from torch import Tensor
from training_curve import draw, in_csv, read_curves

from waveflow.atomic import write_whole
from waveflow.audio import MelSpectrogram, audio_info, mel_picture, write_audio
from waveflow.cli import parse_arguments, run_command
from waveflow.data import Clip, SpeechItem, WholeClips, find_clips, split_clips
from waveflow.errors import InputError
from waveflow.evaluation import Report, device_name, evaluate
from waveflow.evaluation.adjusted import Adjusted
from waveflow.models import VocoderModel, load_vocoder
from waveflow.models.shipped import BEST, SHIPPED
from waveflow.threads import use_threads
from waveflow.training.run_folder import RunFolder
from waveflow.training.staged_folder import staged_folder

LIMIT = 16_000_000  # bytes of weights that a repository still takes
CHUNK = 2048  # frames at a time
LJSPEECH = "The recordings are LJ Speech (Keith Ito and Linda Johnson, 2017), in the public domain in the USA."
SETTINGS = ("learning_rate", "precision", "ema_decay", "seed")


@dataclass(frozen=True)
class Arguments:
    """Make a folder that can be shipped of a training run.

    Args:
        run: Folder that train_waveglow.py, train_waveflow.py or train_wavenet.py left.
        data: The recordings it was trained on; those held out are measured.
        name: Name of the model (default: that of the run's folder).
        segment: Samples of a training segment (--segment of the run), for the card.
        hardware: What it was trained on, in words, for the card.
        hours: How long (default: what the run's TensorBoard events span).
        rights: In the recordings, a sentence for the card (default: those of LJ Speech).
        clips: Held-out clips whose copies are kept.
        match: Rounds by which it scales its copies towards their mels unless told otherwise; 0 for none. The card has
            the figures without, too.
        out: Folder that the model's folder is made in (default: checkpoints/ in the package).
        best: Make it the one that is used where none is named, as the first one is anyway.
        replace: Put it in the place of one of that name.
        device: Where to measure.
        threads: CPU threads of PyTorch.
        seed: Of noise and latents.
    """

    run: str | None = None
    data: str | None = None
    name: str | None = None
    segment: int | None = None
    hardware: str | None = None
    hours: float | None = None
    rights: str = LJSPEECH
    clips: int = 6
    match: int = 3
    out: str | None = None
    best: bool = False
    replace: bool = False
    device: str = "cpu"
    threads: int = 1
    seed: int = 0

    def __post_init__(self):
        for name in ("run", "data", "segment", "hardware"):
            if not getattr(self, name):
                raise InputError(f"--{name} has to be given")
        for name in ("segment", "clips"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} expects at least 1, got {getattr(self, name)}")
        if self.match < 0:
            raise InputError(f"--match expects 0 or more, got {self.match}")
        if self.hours is not None and not 0 < self.hours < math.inf:
            raise InputError(f"--hours expects a positive number, got {self.hours}")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    use_threads(args.threads)
    run, root = RunFolder(args.run), Path(args.out or SHIPPED)
    name = args.name or run.path.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise InputError(f"--name expects letters, digits, '-', '_' and '.', got {name!r}")
    target = root / name
    if target.exists() and not args.replace:  # before minutes of measurement
        raise InputError(f"{target} is there already; say --replace, or another --name")
    train, held_out = split_clips(find_clips(args.data))
    training = describe(args, run, train)
    curves = read_curves(run.logs / "metrics.csv", training.steps)
    trained = load_vocoder(run.path, args.device)
    trained.config = dataclasses.replace(trained.config, match=args.match)

    with staged_folder(target, args.replace) as staged:
        trained.save_pretrained(staged, torch.bfloat16)
        size = (staged / "model.safetensors").stat().st_size
        if size > LIMIT:
            raise InputError(f"{run.path}: the weights are {size / 1e6:.1f} MB in bfloat16, at most {LIMIT / 1e6:g} do")
        shipped = load_vocoder(staged, args.device)

        data = WholeClips(held_out, shipped.mel_config)
        stage = Stage(staged / "samples", shipped, args.clips)
        before = measure(trained, data, args.seed, match=0)
        plain = measure(shipped, data, args.seed, match=0) if args.match else None
        report = measure(shipped, data, args.seed, heard=stage)
        figures = {
            "device": device_name(args.device),
            "seed": args.seed,
            "temperature": shipped.config.temperature,
            "match": shipped.config.match,
            "trained": means(before),
            "unmatched": plain and means(plain),
            "shipped": report.to_dict(),
        }
        measured = Measured(
            [clip.name for clip in report.clips],
            sum(clip.seconds for clip in report.clips),
            before.figures(),
            plain and plain.figures(),
            report.figures(),
            figures["device"],
            report.exact,
        )
        write_whole(staged / "figures.json", (json.dumps(figures, indent=2) + "\n").encode())
        write_whole(staged / "training.csv", in_csv(curves))
        write_whole(staged / "training.png", draw(curves, training.batch * training.segment))
        card = model_card(name, shipped, size, training, measured, stage.names)
        write_whole(staged / "README.md", card.encode())
    if args.best or not (root / BEST).exists():
        write_whole(root / BEST, f"{name}\n".encode())
    total = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(report.table())
    print(f"{target}: {size / 1e6:.1f} MB of weights, {total / 1e6:.1f} MB with all; read {target / 'README.md'}")


def measure(model: VocoderModel, data: WholeClips, seed: int, match: int | None = None, heard=None) -> Report:
    """The figures of a model at its own temperature, and unless told otherwise by its own rounds of matching."""
    ready = Adjusted(model.for_inference(), match=match)
    return evaluate(ready, data, seed=seed, chunk=CHUNK, progress=True, heard=heard)


def means(report: Report) -> dict[str, Any]:
    """What it says of all clips together."""
    return {name: value for name, value in report.to_dict().items() if name != "per_clip"}


class Stage:
    """Keeps what the first clips sound like, and mels of recording and copy.

    Args:
        folder: where.
        model: whose copies they are.
        clips: how many.

    Attributes:
        names: of the files, without ending.
    """

    def __init__(self, folder: Path, model: VocoderModel, clips: int):
        self.folder, self.config, self.clips = folder, model.mel_config, clips
        self.names: list[str] = []
        self._spectrogram = MelSpectrogram(model.mel_config)
        folder.mkdir()

    def __call__(self, clip: SpeechItem, copy: Tensor) -> None:
        if len(self.names) == self.clips:
            return
        name = clip["name"].replace("/", "_")
        copy = copy.clamp(-1, 1)
        panels = [("recorded", clip["mel"]), ("generated", self._spectrogram(copy[None])[0])]
        write_audio(self.folder / f"{name}.flac", copy, self.config.sample_rate)
        mel_picture(self.folder / f"{name}.png", panels, self.config)
        self.names.append(name)


def describe(args: Arguments, run: RunFolder, clips: Sequence[Clip]) -> Training:
    """What the run says of itself; the rest is told."""
    _, checkpoint = run.load()
    settings, steps = checkpoint["settings"], checkpoint["state"]["step"]
    hours = args.hours or hours_of(run.logs)
    lengths = (audio_info(clip.path) for clip in clips if clip.path.exists())
    minutes = sum(info.samples / info.sample_rate for info in lengths) / 60
    said = {name: settings[name] for name in SETTINGS}
    return Training(
        [clip.name for clip in clips],
        minutes,
        steps,
        settings["batch_size"],
        args.segment,
        said,
        args.hardware,
        hours,
        args.rights,
    )


def hours_of(logs: Path) -> float:
    """Hours from first to last event of each process that trained, added up.

    Raises:
        InputError: if there are none.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    total = 0.0
    for path in sorted(logs.glob("events.out.tfevents.*")):
        times = [event.wall_time for event in EventFileLoader(str(path)).Load()]
        total += max(times, default=0.0) - min(times, default=0.0)
    if not total:
        raise InputError(f"{logs}: no TensorBoard events tell how long it was trained: say --hours")
    return total / 3600


if __name__ == "__main__":
    sys.exit(run_command(main, "ship.py"))

"""WaveNet, WaveFlow and WaveGlow, with and without whitening, after equally many samples of speech.

    python benchmarks/vocoders.py --data path/to/LJSpeech-1.1

Held-out nats per sample by one harness (one uniform 16-bit step of noise, whole clips) against samples trained on. Same
crops, same optimizer and schedule for all; the models take their steps in turn in this process.
"""

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from waveflow.atomic import write_whole
from waveflow.cli import parse_arguments, run_command
from waveflow.data import Batches, SpeechSegments, WholeClips, find_clips, split_clips
from waveflow.distributions import speech_likelihood
from waveflow.errors import InputError
from waveflow.evaluation import nats_per_sample
from waveflow.models import VocoderModel, WaveFlow, WaveGlow, WaveNet
from waveflow.threads import use_threads
from waveflow.training import EMA, learning_rate_factor
from waveflow.training.randomness import seed_generators

SAMPLES = Path(__file__).parents[1] / "samples" / "speech"
MODELS = {
    "WaveNet gaussian": (WaveNet, "gaussian", "#0072B2"),
    "WaveFlow ljspeech-64": (WaveFlow, "ljspeech-64", "#E69F00"),
    "WaveGlow ljspeech-64": (WaveGlow, "ljspeech-64", "#000000"),
}  # colours of Okabe & Ito: also for the colour-blind
WHITENING = {"whiten": True, "whiten_order": 128, "whiten_block": 32, "whiten_correction": 64}


@dataclass(frozen=True)
class Arguments:
    """Train three vocoders, plain and whitened, on the same samples, and draw how likely they find held-out speech.

    Args:
        data: LJ Speech folder, or any folder of audio files (default: the clips in samples/speech).
        steps: Optimizer steps of each.
        segment: Samples of a training segment.
        batch_size: Segments per step.
        learning_rate: Of Adam for all of them, after 20 steps of warm-up.
        evaluate_every: Steps between evaluations.
        clips: Held-out clips that are evaluated on; 0 for all.
        only: Names of the models to train; all of them by default.
        out: Folder for vocoders.csv and vocoders.png.
        device: cpu or cuda.
        threads: CPU threads of PyTorch.
        seed: Of weights, crops and noise.
    """

    data: str | None = None
    steps: int = 200
    segment: int = 8192
    batch_size: int = 1
    learning_rate: float = 1e-3
    evaluate_every: int = 50
    clips: int = 4
    only: tuple[str, ...] = tuple(MODELS)
    out: str = "runs/vocoders"
    device: str = "cpu"
    threads: int = 1
    seed: int = 0


class Training:
    """One model on its way.

    Args:
        model: the vocoder.
        args: the flags.
        segments: to train on.
    """

    def __init__(self, model: VocoderModel, args: Arguments, segments: SpeechSegments):
        self.model, self.args = model.to(args.device), args
        self.batches = Batches(segments, args.batch_size, args.seed)
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.ema = EMA(self.model, 0.99)
        self.steps = self.skipped = 0
        self.seconds = 0.0

    def step(self) -> None:
        """One step; one that is not finite is skipped, and counted."""
        start = process_time()
        batch = self.batches.batch(self.steps)
        batch = {name: batch[name].to(self.args.device) for name in ("waveform", "mel")}
        self.optimizer.zero_grad(set_to_none=True)
        loss = speech_likelihood(self.model, batch)["loss"]
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        if loss.isfinite() and norm.isfinite():
            factor = learning_rate_factor(self.steps, warmup_steps=20, decay_after=self.args.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = self.args.learning_rate * factor
            self.optimizer.step()
            self.ema.update()
        else:
            self.skipped += 1
        self.steps += 1
        self.seconds += process_time() - start

    def evaluate(self, held_out: WholeClips) -> float:
        """Nats per sample of the averaged weights."""
        with self.ema.applied():
            return nats_per_sample(self.model, held_out, self.args.seed).nats_per_sample


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    for name in ("steps", "batch_size", "evaluate_every", "segment"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} expects at least 1, got {getattr(args, name)}")
    if unknown := [name for name in args.only if name not in MODELS]:
        raise InputError(f"--only expects some of {', '.join(MODELS)}, got {unknown[0]!r}")
    table, picture = (Path(args.out) / f"vocoders.{suffix}" for suffix in ("csv", "png"))
    if table.exists():
        raise InputError(f"{table} is there already; say by --out DIR where else to write")
    train_clips, held_out_clips = split_clips(find_clips(args.data or SAMPLES))
    use_threads(args.threads)
    trainings, segments, held_out = {}, None, None
    for name in args.only:
        kind, preset, _ = MODELS[name]
        for whitened in (False, True):
            seed_generators(args.seed)
            model = kind.from_preset(preset, **(WHITENING if whitened else {}))
            if segments is None:
                segments = SpeechSegments(train_clips, model.mel_config, args.segment, args.seed)
                held_out = WholeClips(held_out_clips[: args.clips or None], model.mel_config)
            trainings[name, whitened] = Training(model, args, segments)
    table.parent.mkdir(parents=True, exist_ok=True)
    print(f"{len(segments)} clips to train on, {len(held_out)} held out; writing {table} and {picture}", flush=True)

    rows = []
    with tqdm(total=args.steps * len(trainings), unit=" steps", disable=None) as bar:
        for step in range(args.steps + 1):
            if step % args.evaluate_every == 0 or step == args.steps:
                for (name, whitened), training in trainings.items():
                    nats = training.evaluate(held_out)
                    rows.append(
                        {
                            "model": name,
                            "whitened": int(whitened),
                            "samples": training.steps * args.segment * args.batch_size,
                            "nats_per_sample": nats,
                            "cpu_minutes": training.seconds / 60,
                            "skipped_steps": training.skipped,
                        }
                    )
                    title = name + (", whitened" if whitened else "")
                    bar.write(f"{step:6} steps  {title:32} {nats:7.3f} nats  {training.seconds / 60:6.2f} CPU min")
                    write_whole(table, in_csv(rows))
                write_whole(picture, draw(rows))
            if step < args.steps:
                for training in trainings.values():
                    training.step()
                    bar.update()


def in_csv(rows: Sequence[dict]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.5g}" if isinstance(value, float) else value for name, value in row.items()})
    return text.getvalue().encode()


def draw(rows: Sequence[dict]) -> bytes:
    """A PNG: nats per sample against samples seen; whitened models are dashed."""
    figure = Figure(figsize=(7.5, 4.2), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axis = figure.subplots()
    for name, whitened in dict.fromkeys((row["model"], row["whitened"]) for row in rows):
        mine = [row for row in rows if (row["model"], row["whitened"]) == (name, whitened)]
        curve = [(row["samples"] / 1e6, row["nats_per_sample"]) for row in mine]
        style = "--o" if whitened else "-s"
        label = name + (", whitened" if whitened else "")
        axis.plot(*zip(*curve, strict=True), style, color=MODELS[name][2], markersize=4, label=label)
    axis.set(xlabel="million samples trained on", ylabel="held-out nats per sample")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right", frameon=False)
    png = io.BytesIO()
    canvas.print_png(png, metadata={"Software": None})
    return png.getvalue()


if __name__ == "__main__":
    sys.exit(run_command(main, "vocoders.py"))

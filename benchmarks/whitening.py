"""What whitening is worth: one WaveGlow with and without it, after equal CPU time.

    python benchmarks/whitening.py --data path/to/LJSpeech-1.1

Held-out nats per sample, and STOI and log-mel L1 of copies, against CPU minutes of training. All variants train on one
thread of this process, a few seconds in turn, so that neighbours on the machine slow all of them alike. Same first
weights, same batches, trained as the recipe trains; what evaluations cost is not counted.
"""

import csv
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from waveflow.atomic import write_whole
from waveflow.audio.metrics import log_mel_l1
from waveflow.cli import parse_arguments, run_command
from waveflow.data import Batches, SpeechSegments, WholeClips, find_clips, split_clips
from waveflow.errors import InputError
from waveflow.evaluation import Synthesizer, mean_stoi, nats_per_sample
from waveflow.models import WaveGlow
from waveflow.training import EMA, learning_rate_factor
from waveflow.training.randomness import seed_generators

SAMPLES = Path(__file__).parents[1] / "samples" / "speech"
SEGMENT, BATCH_SIZE = 8192, 2
TURN = 2.0  # CPU seconds

VARIANTS = {
    "plain": {"whiten": False},
    "whitened": {"whiten": True, "whiten_correction": 0},
    "whitened, corrected": {"whiten": True, "whiten_correction": 64},
}
FIGURES = {
    "nats_per_sample": "held-out nats per sample",
    "stoi": "STOI of copies",
    "log_mel_l1": "log-mel L1 of copies, nats",
}
LINES = (("#000000", "s"), ("#E69F00", "o"), ("#0072B2", "^"))  # Okabe & Ito: also for the colour-blind


@dataclass(frozen=True)
class Arguments:
    """Train the tiny WaveGlow with and without whitening for equal CPU time, and draw how good each becomes.

    Args:
        data: LJ Speech folder, or any folder of audio files (default: the clips in samples/speech).
        minutes: CPU minutes of training of each variant.
        evaluate_every: CPU minutes of training between evaluations.
        clips: Held-out clips that are copied for STOI and log-mel L1; the likelihood is that of all.
        out: Folder for whitening.csv and whitening.png.
        seed: Of weights, crops, noise and latents.
    """

    data: str | None = None
    minutes: float = 5.0
    evaluate_every: float = 0.5
    clips: int = 4
    out: str = "runs/whitening"
    seed: int = 0


class Training:
    """One variant on its way: the recipe's optimizer, schedule and averaged weights.

    Args:
        variant: fields of the model that differ from the preset's.
        segments: to train on.
        seed: of weights and order.
    """

    def __init__(self, variant: dict, segments: SpeechSegments, seed: int):
        seed_generators(seed)
        self.model = WaveGlow.from_preset("tiny", **variant)
        first = Batches(segments, 16, seed).batch(0)
        with torch.no_grad():
            self.model.flow.initialize(first["waveform"][:, None], first["mel"])
        self.batches = Batches(segments, BATCH_SIZE, seed)
        self.optimizer = torch.optim.Adam(self.model.parameters(), betas=(0.9, 0.99))
        self.ema = EMA(self.model, 0.999)
        self.steps, self.seconds = 0, 0.0
        self._loss().backward()  # untimed: the first of a process loads libraries

    def train(self, until: float) -> None:
        """Steps until this training has had so many CPU seconds."""
        while self.seconds < until:
            start = process_time()
            self.step()
            self.seconds += process_time() - start

    def step(self) -> None:
        """One step of the recipe."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 100.0)
        if loss.isfinite() and norm.isfinite():
            for group in self.optimizer.param_groups:
                group["lr"] = 4e-3 * learning_rate_factor(self.steps, warmup_steps=50, decay_after=2000)
            self.optimizer.step()
            self.ema.update()
        self.steps += 1

    def evaluate(self, held_out: WholeClips, copied: int, seed: int) -> dict[str, float]:
        """``FIGURES`` of the averaged weights, at the model's default temperature."""
        heard = [held_out[i] for i in range(min(copied, len(held_out)))]
        with self.ema.applied():
            synthesize = Synthesizer(self.model, seed=seed)
            rate = self.model.mel_config.sample_rate
            distances = [log_mel_l1(clip["waveform"], synthesize(clip["mel"]).waveform, rate) for clip in heard]
            return {
                "nats_per_sample": nats_per_sample(self.model, held_out, seed).nats_per_sample,
                "stoi": mean_stoi(self.model, heard, seed=seed),
                "log_mel_l1": sum(distances) / len(distances),
            }

    def _loss(self) -> Tensor:
        batch = self.batches.batch(self.steps)
        return -self.model(batch["waveform"], batch["mel"]).mean() / SEGMENT


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    for name in ("minutes", "evaluate_every", "clips"):
        if not 0 < getattr(args, name) < math.inf:
            raise InputError(f"--{name.replace('_', '-')} expects a positive number, got {getattr(args, name)}")
    table, picture = (Path(args.out) / f"whitening.{suffix}" for suffix in ("csv", "png"))
    if table.exists():
        raise InputError(f"{table} is there already; say by --out DIR where else to write")
    train_clips, held_out_clips = split_clips(find_clips(args.data or SAMPLES))
    torch.set_num_threads(1)
    mel_config = WaveGlow.from_preset("tiny").mel_config
    segments = SpeechSegments(train_clips, mel_config, SEGMENT, args.seed)
    held_out = WholeClips(held_out_clips, mel_config)
    table.parent.mkdir(parents=True, exist_ok=True)
    print(f"{len(segments)} clips to train on, {len(held_out)} held out; writing {table} and {picture}", flush=True)

    trainings = {name: Training(variant, segments, args.seed) for name, variant in VARIANTS.items()}
    rows, goal, end = [], 0.0, 60 * args.minutes
    with tqdm(total=round(end * len(trainings)), unit="CPU s", disable=None) as bar:
        while True:
            while any(training.seconds < goal for training in trainings.values()):
                for training in trainings.values():
                    training.train(min(training.seconds + TURN, goal))
                    bar.update(round(sum(training.seconds for training in trainings.values())) - bar.n)
            for name, training in trainings.items():
                figures = training.evaluate(held_out, args.clips, args.seed)
                rows.append({"variant": name, "cpu_minutes": training.seconds / 60, "steps": training.steps, **figures})
                shown = "  ".join(f"{figure} {value:.3f}" for figure, value in figures.items())
                bar.write(f"{training.seconds / 60:6.2f} min {training.steps:6} steps  {name:20}  {shown}")
                write_whole(table, in_csv(rows))
            write_whole(picture, draw(rows))
            if goal >= end:
                break
            goal = min(goal + 60 * args.evaluate_every, end)


def in_csv(rows: Sequence[dict]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.5g}" if isinstance(value, float) else value for name, value in row.items()})
    return text.getvalue().encode()


def draw(rows: Sequence[dict]) -> bytes:
    """A PNG with one panel for each of ``FIGURES`` and one line for each variant."""
    figure = Figure(figsize=(12, 3.8), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axis, (name, label) in zip(figure.subplots(1, len(FIGURES)), FIGURES.items(), strict=True):
        for variant, (colour, marker) in zip(VARIANTS, LINES, strict=True):
            curve = [(row["cpu_minutes"], row[name]) for row in rows if row["variant"] == variant]
            axis.plot(*zip(*curve, strict=True), color=colour, marker=marker, markersize=4, label=variant)
        axis.set(xlabel="CPU minutes of training, one thread", title=label)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    figure.axes[0].legend(loc="lower right", frameon=False)
    png = io.BytesIO()
    canvas.print_png(png, metadata={"Software": None})
    return png.getvalue()


if __name__ == "__main__":
    sys.exit(run_command(main, "whitening.py"))

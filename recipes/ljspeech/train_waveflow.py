"""Train WaveFlow on speech: the clips that ship with waveflow, LJ Speech, or any folder of recordings."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.distributions import speech_likelihood
from waveflow.models import WaveFlow
from waveflow.training.speech_arguments import SpeechArguments
from waveflow.training.speech_run import SpeechRun


@dataclass(frozen=True)
class Arguments(SpeechArguments):
    """Train WaveFlow on speech; without any flag, a small one on the clips that ship, in minutes on a CPU.

    Args:
        preset: Size of the model: tiny, small, ljspeech-64, ljspeech-96, ljspeech-128 or ljspeech-256.
        learning_rate: Learning rate of Adam, after a linear warm-up (default: 4e-3, for the ljspeech presets the
            paper's 2e-4).
        memory: invert rebuilds activations in the backward pass: less memory, more work.
        out: Folder of the run (default: runs/waveflow-PRESET, with a number where that holds one).
    """

    memory: Literal["store", "invert"] = "store"


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    published = args.preset.startswith("ljspeech")
    if args.learning_rate is None:
        args = replace(args, learning_rate=2e-4 if published else 4e-3)
    run = SpeechRun(
        args,
        WaveFlow,
        out=args.out or default_out(f"waveflow-{args.preset}", args.resume),
        fields={"memory": args.memory},
        betas=(0.9, 0.999) if published else (0.9, 0.99),
        warmup_steps=50,
        decay_after=0 if published else 2000,
        clip_norm=5.0 if published else 100.0,
    )
    run.fit(speech_likelihood)


if __name__ == "__main__":
    sys.exit(run_command(main, "train_waveflow.py"))

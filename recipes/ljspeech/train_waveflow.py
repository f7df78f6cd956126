"""Train WaveFlow on speech: the clips that ship with waveflow, LJ Speech, or any folder of recordings."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.distributions import speech_likelihood
from waveflow.models import WaveFlow
from waveflow.training.speech_arguments import VocoderArguments
from waveflow.training.speech_run import SpeechRun

# How each preset is trained, unless --learning-rate says otherwise; PUBLISHED as in the paper.
PUBLISHED = {"learning_rate": 2e-4, "betas": (0.9, 0.999), "warmup_steps": 50, "clip_norm": 5.0}
FOR_A_CPU = {"learning_rate": 4e-3, "betas": (0.9, 0.99), "warmup_steps": 50, "decay_after": 2000, "clip_norm": 100.0}
TRAINING = {
    "tiny": FOR_A_CPU,
    "small": FOR_A_CPU,
    "ljspeech-64": PUBLISHED,
    "ljspeech-96": PUBLISHED,
    "ljspeech-128": PUBLISHED,
    "ljspeech-256": PUBLISHED,
}


@dataclass(frozen=True)
class Arguments(VocoderArguments):
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
    run = SpeechRun(
        args,
        WaveFlow,
        out=args.out or default_out(f"waveflow-{args.preset}", args.resume),
        fields={"memory": args.memory},
        **args.training_of(TRAINING),
    )
    run.fit(speech_likelihood)


if __name__ == "__main__":
    sys.exit(run_command(main, "train_waveflow.py"))

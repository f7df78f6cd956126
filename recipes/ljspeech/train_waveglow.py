"""Train WaveGlow on speech: the clips that ship with waveflow, LJ Speech, or any folder of recordings."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.distributions import speech_likelihood
from waveflow.models import WaveGlow
from waveflow.training.speech_arguments import VocoderArguments
from waveflow.training.speech_run import SpeechRun

# How each preset is trained, unless --learning-rate says otherwise.
SHARED = {"betas": (0.9, 0.99), "warmup_steps": 50, "decay_after": 2000, "clip_norm": 100.0}
TRAINING = {
    "tiny": {"learning_rate": 4e-3, **SHARED},
    "small": {"learning_rate": 4e-3, **SHARED},
    "squeeze": {"learning_rate": 1e-3, **SHARED},  # 4e-3 explodes within 120 steps
    "ljspeech": {"learning_rate": 1e-4, **SHARED},
    "ljspeech-64": {"learning_rate": 1e-4, **SHARED},
    "ljspeech-512": {"learning_rate": 1e-4, **SHARED},
}


@dataclass(frozen=True)
class Arguments(VocoderArguments):
    """Train WaveGlow on speech; without any flag, a small one on the clips that ship, in minutes on a CPU.

    Args:
        preset: Size of the model: tiny, small, squeeze, ljspeech, ljspeech-64 or ljspeech-512.
        learning_rate: Learning rate of Adam, after a linear warm-up (default: 4e-3, for squeeze 1e-3,
            for the ljspeech presets 1e-4).
        memory: invert rebuilds activations in the backward pass: less memory, more work.
        out: Folder of the run (default: runs/waveglow-PRESET, with a number where that holds one).
    """

    memory: Literal["store", "invert"] = "store"


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    run = SpeechRun(
        args,
        WaveGlow,
        out=args.out or default_out(f"waveglow-{args.preset}", args.resume),
        fields={"memory": args.memory},
        **args.training_of(TRAINING),
    )
    run.fit(speech_likelihood, initialize=run.model.config.actnorm)


if __name__ == "__main__":
    sys.exit(run_command(main, "train_waveglow.py"))

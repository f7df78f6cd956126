"""Train WaveNet on speech: the clips that ship with waveflow, LJ Speech, or any folder of recordings."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.distributions import speech_likelihood
from waveflow.errors import InputError
from waveflow.models import WaveNet
from waveflow.training.speech_arguments import VocoderArguments
from waveflow.training.speech_run import SpeechRun

# How each preset is trained, unless --learning-rate says otherwise. PUBLISHED as in ClariNet and in r9y9's
# wavenet_vocoder: the averaged weights are the teacher.
PUBLISHED = {"learning_rate": 1e-3, "halve_at": (200_000, 400_000, 600_000), "ema_decay": 0.9999}
FOR_A_CPU = {"learning_rate": 4e-3, "betas": (0.9, 0.99), "warmup_steps": 50, "decay_after": 2000, "clip_norm": 100.0}
TRAINING = {"tiny": FOR_A_CPU, "small": PUBLISHED, "gaussian": PUBLISHED, "mol": PUBLISHED, "softmax": PUBLISHED}


@dataclass(frozen=True)
class Arguments(VocoderArguments):
    """Train WaveNet on speech; without any flag, a small one on the clips that ship, in minutes on a CPU.

    Args:
        preset: Size and head of the model: tiny, small, gaussian, mol or softmax.
        learning_rate: Learning rate of Adam (default: 1e-3, halved every 200,000 steps; for tiny 4e-3, after a linear
            warm-up).
        heard_seconds: How much of a clip is synthesised, at evaluations and to choose the temperature. It takes its
            time, sample by sample.
        out: Folder of the run (default: runs/wavenet-PRESET, with a number where that holds one).
    """

    steps: int = 1000
    validate_every: int = 250
    heard_seconds: float = 2.0

    def __post_init__(self):
        super().__post_init__()
        if not self.heard_seconds > 0:
            raise InputError(f"--heard-seconds expects more than 0, got {self.heard_seconds}")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    run = SpeechRun(
        args,
        WaveNet,
        out=args.out or default_out(f"wavenet-{args.preset}", args.resume),
        heard_seconds=args.heard_seconds,
        **args.training_of(TRAINING),
    )
    run.fit(speech_likelihood)


if __name__ == "__main__":
    sys.exit(run_command(main, "train_wavenet.py"))

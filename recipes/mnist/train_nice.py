"""Train NICE on digits: those inside scikit-learn, or MNIST."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.distributions import image_likelihood
from waveflow.models import NICE
from waveflow.training.image_arguments import ImageFlowArguments
from waveflow.training.image_run import ImageRun


@dataclass(frozen=True)
class Arguments(ImageFlowArguments):
    """Train NICE on digits; without any flag, on the small ones inside scikit-learn, in minutes on a CPU.

    Args:
        preset: Of NICE (default: digits for the small ones, otherwise mnist, the paper's).
    """


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    preset = args.preset or ("digits" if args.data == "digits" else "mnist")
    out = args.out or default_out(f"nice-{Path(args.data).name}", args.resume)
    ImageRun(args, NICE, preset, out).fit(image_likelihood)


if __name__ == "__main__":
    sys.exit(run_command(main, "train_nice.py"))

"""Train Glow on digits: those inside scikit-learn, or MNIST."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.distributions import image_likelihood
from waveflow.models import Glow
from waveflow.training.image_arguments import ImageFlowArguments
from waveflow.training.image_run import ImageRun


@dataclass(frozen=True)
class Arguments(ImageFlowArguments):
    """Train Glow on digits; without any flag, on the small ones inside scikit-learn, in minutes on a CPU.

    Args:
        preset: Of Glow (default: digits for the small ones, otherwise mnist-small).
        temperature: Of the samples; the paper shows them at 0.7.
    """

    temperature: float = 0.7


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    preset = args.preset or ("digits" if args.data == "digits" else "mnist-small")
    out = args.out or default_out(f"glow-{Path(args.data).name}", args.resume)
    ImageRun(args, Glow, preset, out).fit(image_likelihood)


if __name__ == "__main__":
    sys.exit(run_command(main, "train_glow.py"))

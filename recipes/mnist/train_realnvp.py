"""Train RealNVP on digits: those inside scikit-learn, or MNIST."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.distributions import image_likelihood
from waveflow.models import RealNVP
from waveflow.training.image_arguments import RealNVPArguments
from waveflow.training.image_run import ImageRun
from waveflow.training.penalty import with_penalty


@dataclass(frozen=True)
class Arguments(RealNVPArguments):
    """Train RealNVP on digits; without any flag, on the small ones inside scikit-learn, in minutes on a CPU.

    Args:
        preset: Of RealNVP (default: digits for the small ones, otherwise mnist-small).
    """


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    preset = args.preset or ("digits" if args.data == "digits" else "mnist-small")
    out = args.out or default_out(f"realnvp-{Path(args.data).name}", args.resume)
    run = ImageRun(args, RealNVP, preset, out)
    run.fit(with_penalty(image_likelihood, run.model.weight_scales(), args.penalty))


if __name__ == "__main__":
    sys.exit(run_command(main, "train_realnvp.py"))

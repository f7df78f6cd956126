"""Train RealNVP on colour images: CIFAR-10, or crops of photographs."""

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

SMALL = {"blocks": 1, "hidden": 16, "norm": "actnorm"}


@dataclass(frozen=True)
class Arguments(RealNVPArguments):
    """Train RealNVP on colour images; without any flag, on crops of the two photographs inside scikit-learn.

    Args:
        preset: Of RealNVP; cifar10 is the paper's (default: that with one block of 16 channels and ActNorm, for a CPU).
    """

    data: str = "photographs"
    steps: int = 1000
    batch_size: int = 16


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    out = args.out or default_out(f"realnvp-{Path(args.data).name}", args.resume)
    run = ImageRun(args, RealNVP, args.preset or "cifar10", out, {} if args.preset else SMALL)
    run.fit(with_penalty(image_likelihood, run.model.weight_scales(), args.penalty))


if __name__ == "__main__":
    sys.exit(run_command(main, "train_realnvp.py"))

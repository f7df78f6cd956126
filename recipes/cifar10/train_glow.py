"""Train Glow on colour images: CIFAR-10, or crops of photographs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.distributions import image_likelihood
from waveflow.models import Glow
from waveflow.training.image_arguments import ImageFlowArguments
from waveflow.training.image_run import ImageRun

SMALL = {"steps": 4, "hidden": 64}


@dataclass(frozen=True)
class Arguments(ImageFlowArguments):
    """Train Glow on colour images; without any flag, on crops of the two photographs inside scikit-learn.

    Args:
        preset: Of Glow; cifar10 is the paper's (default: that with 4 steps of 64 channels in each level, for a CPU).
        temperature: Of the samples; the paper shows them at 0.7.
    """

    data: str = "photographs"
    steps: int = 1000
    batch_size: int = 16
    temperature: float = 0.7


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    out = args.out or default_out(f"glow-{Path(args.data).name}", args.resume)
    ImageRun(args, Glow, args.preset or "cifar10", out, {} if args.preset else SMALL).fit(image_likelihood)


if __name__ == "__main__":
    sys.exit(run_command(main, "train_glow.py"))

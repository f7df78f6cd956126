"""Train a PixelCNN, plain or gated, on digits, with all their values or binary."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.distributions import image_likelihood
from waveflow.models import GatedPixelCNN, PixelCNN
from waveflow.training.image_arguments import PixelCNNArguments
from waveflow.training.image_run import ImageRun


@dataclass(frozen=True)
class Arguments(PixelCNNArguments):
    """Train a PixelCNN on digits; without any flag, on the small ones inside scikit-learn, in minutes on a CPU.

    Args:
        preset: Of PixelCNN or GatedPixelCNN (default: digits for the small ones, otherwise mnist).
    """


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    model = GatedPixelCNN if args.model == "gated" else PixelCNN
    preset = args.preset or ("digits" if args.data == "digits" else "mnist")
    name = f"pixelcnn-{args.model}-{'binary-' if args.binary else ''}{Path(args.data).name}"
    fields = {} if args.head is None else {"head": args.head}
    ImageRun(args, model, preset, args.out or default_out(name, args.resume), fields).fit(image_likelihood)


if __name__ == "__main__":
    sys.exit(run_command(main, "train_pixelcnn.py"))

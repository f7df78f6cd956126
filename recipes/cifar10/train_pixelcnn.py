"""Train a PixelCNN, plain or gated, on colour images: CIFAR-10, or crops of photographs."""

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
    """Train a PixelCNN on colour images; without any flag, on crops of the two photographs inside scikit-learn.

    Args:
        preset: Of PixelCNN or GatedPixelCNN; cifar10 is the papers'.
    """

    data: str = "photographs"
    preset: str = "cifar10-small"
    steps: int = 1000
    batch_size: int = 16
    samples: int = 36


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    model = GatedPixelCNN if args.model == "gated" else PixelCNN
    out = args.out or default_out(f"pixelcnn-{args.model}-{Path(args.data).name}", args.resume)
    fields = {} if args.head is None else {"head": args.head}
    ImageRun(args, model, args.preset, out, fields).fit(image_likelihood)


if __name__ == "__main__":
    sys.exit(run_command(main, "train_pixelcnn.py"))

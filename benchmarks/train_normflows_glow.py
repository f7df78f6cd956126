"""Train normflows' Glow exactly as recipes/*/train_glow.py train waveflow's: data, noise, optimizer, average, report.

    pip install normflows==1.7.3
    python benchmarks/train_normflows_glow.py --data cifar10 --path path/to/cifar10 --flips --preset cifar10

The flags are those of recipes/cifar10/train_glow.py, and so is what a run leaves. Models are made as glow_peers.py has
them; ``levels``, ``steps`` and ``hidden`` are the only fields, and of presets only these are taken over.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import glow_peers
import torch
from torch import Tensor

from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.distributions import image_likelihood
from waveflow.distributions.dequantise import UniformDequantisation
from waveflow.errors import InputError
from waveflow.models import Glow, ImageModel
from waveflow.models.image_model import ImageModelConfig
from waveflow.training.image_arguments import ImageArguments
from waveflow.training.image_run import ImageRun

_SIZES = ("levels", "steps", "hidden")


@dataclass(frozen=True)
class NormflowsGlowConfig(ImageModelConfig):
    """Levels, steps in each, and width of the networks, as of :class:`~waveflow.models.Glow`."""

    levels: int = 2
    steps: int = 32
    hidden: int = 512

    def __post_init__(self):
        super().__post_init__()
        self._require_levels(self.levels)
        if self.classes:
            raise InputError("normflows' Glow is trained without labels here, got --conditional")


class NormflowsGlow(ImageModel):
    """normflows' Glow of dequantised images, behind the face of waveflow's models of images."""

    Config = NormflowsGlowConfig
    PRESETS: ClassVar = {
        name: {key: value for key, value in fields.items() if key in (*_SIZES, "channels", "height", "width", "values")}
        for name, fields in Glow.PRESETS.items()
    }
    config: NormflowsGlowConfig
    exact = False

    def build(self) -> None:
        c = self.config
        try:
            self.peer = glow_peers.normflows(c.levels, c.steps, c.hidden, c.image_shape).module
        except ModuleNotFoundError:
            raise InputError("this comparison needs normflows: pip install normflows") from None
        self.dequantise = UniformDequantisation()

    @torch.no_grad()
    def initialize(self, images: Tensor, label: Tensor | None = None) -> None:
        """Set the scales from images."""
        self.log_prob(images)

    def _log_prob(self, images: Tensor, context: Any, generator: torch.Generator | None) -> Tensor:
        values = self.config.values
        y, log_q = self.dequantise(images.to(self._like().dtype), values, generator)
        dims = y[0].numel()
        return self.peer.log_prob(y, None) - log_q - dims * torch.tensor(float(values)).log().item()

    def _sample(self, n: int, context: Any, temperature: float, generator: torch.Generator | None) -> Tensor:
        device, values = self._like().device, self.config.values
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            if generator is not None:  # normflows draws from the global one only
                torch.manual_seed(generator.initial_seed())
            y, _ = self.peer.sample(n, temperature=temperature)
        if not y.isfinite().all():
            raise FloatingPointError("NormflowsGlow gave pixels that are not finite")
        return (y * values).floor().clamp(0, values - 1).to(torch.uint8)


@dataclass(frozen=True)
class Arguments(ImageArguments):
    """Train normflows' Glow.

    Args:
        preset: Of Glow; of it, the sizes.
        temperature: Of the samples.
    """

    data: str = "photographs"
    preset: str = "cifar10"
    steps: int = 1000
    batch_size: int = 16
    temperature: float = 0.7


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    out = args.out or default_out(f"normflows-glow-{Path(args.data).name}", args.resume)
    ImageRun(args, NormflowsGlow, args.preset, out).fit(image_likelihood)


if __name__ == "__main__":
    sys.exit(run_command(main, "train_normflows_glow.py"))

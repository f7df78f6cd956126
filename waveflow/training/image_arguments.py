"""The flags of image recipes: one word for one thing in all of them."""

from dataclasses import dataclass
from typing import Any, Literal

from waveflow.errors import InputError


@dataclass(frozen=True)
class ImageArguments:
    """Train a model of images.

    Args:
        data: digits or photographs, which come inside scikit-learn; mnist, cifar10, cifar10-jpeg, faces; or a folder of
            images.
        path: Folder of mnist, cifar10 or cifar10-jpeg, file of faces.
        download: Fetch mnist (12 MB) or cifar10 (170 MB) into --path (default: data/NAME) first.
        size: Side of the images; photographs, faces and folders only.
        channels: 1 for grey, 3 for colour; folders only.
        binary: Pixels are 0 or 1, drawn with their intensity as probability; anew in each epoch of training.
        flips: Mirror every other training image.
        conditional: Tell the model the label of each image; it then draws images of a class.
        preset: Size of the model.
        fields: Fields of the preset to be replaced, as in --fields.hidden 256; a wrong one lists them all.
        steps: Optimizer steps in total.
        batch_size: Images per step, on each process.
        learning_rate: Of Adam, after a linear warm-up; falls with the square root of the step in longer runs.
        out: Folder of the run (default: runs/MODEL-DATA, with a number where that holds one).
        device: auto takes a CUDA GPU where there is one.
        threads: CPU threads of PyTorch. More help large batches only, and stall where other programs want the cores.
        precision: bf16-mixed is for GPUs.
        seed: Equal seeds give equal runs, byte for byte on a CPU.
        resume: Continue the run in --out (default: the last one).
        validate_every: Steps between evaluations on validation images, each with a grid of samples; 0 for one
            before and one after training only.
        validate_images: How many of them are used; 0 for all.
        test_images: How many test images the final figure is about; 0 for all.
        samples: Images in a grid of samples.
        temperature: Of the samples: below 1 for likelier, less diverse images.
        save_every: Steps between checkpoints; 0 for one at the end only.

    Raises:
        InputError: for a number out of its range.
    """

    data: str = "digits"
    path: str | None = None
    download: bool = False
    size: int | None = None
    channels: Literal[1, 3] | None = None
    binary: bool = False
    flips: bool = False
    conditional: bool = False
    preset: str | None = None
    fields: dict[str, Any] | None = None
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    out: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    seed: int = 0
    resume: bool = False
    validate_every: int = 500
    validate_images: int = 500
    test_images: int = 0
    samples: int = 64
    temperature: float = 1.0
    save_every: int = 500

    def __post_init__(self):
        self._require_at_least(1, "samples")
        self._require_at_least(0, "validate_images", "test_images", "temperature")

    def _require_at_least(self, least: int, *names: str) -> None:
        for name in names:
            if not getattr(self, name) >= least:
                raise InputError(f"--{name.replace('_', '-')} expects at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class ImageFlowArguments(ImageArguments):
    """Train a flow of images.

    Args:
        dequantisation: How pixels are made continuous: by uniform noise, or by noise that a small flow learns.
        memory: invert rebuilds activations in the backward pass: less memory, more work.
    """

    dequantisation: Literal["uniform", "variational"] = "uniform"
    memory: Literal["store", "invert"] = "store"


@dataclass(frozen=True)
class RealNVPArguments(ImageFlowArguments):
    """Train a RealNVP.

    Args:
        penalty: On the squared scales of weight-normed layers, as in the paper.
    """

    penalty: float = 5e-5

    def __post_init__(self):
        super().__post_init__()
        self._require_at_least(0, "penalty")


@dataclass(frozen=True)
class PixelCNNArguments(ImageArguments):
    """Train a PixelCNN.

    Args:
        model: plain (van den Oord et al., 2016a), which does not see all that is before a pixel, or gated (2016b).
        head: Distribution of a pixel: categorical, logistics (a mixture of them), or bernoulli for binary images
            (default: bernoulli for those, otherwise the preset's).
    """

    model: Literal["plain", "gated"] = "gated"
    head: Literal["categorical", "logistics", "bernoulli"] | None = None

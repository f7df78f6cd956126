"""Make a folder that can be shipped of a training run: rounded weights, measured again, with a card and samples."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from waveflow.atomic import write_whole
from waveflow.cli import parse_arguments, run_command
from waveflow.data import ImageSet, load_images
from waveflow.errors import InputError
from waveflow.evaluation import device_name
from waveflow.evaluation.image_likelihood import ImageLikelihood, image_likelihood_of
from waveflow.models import ImageFlow, ImageModel
from waveflow.models.shipped import SHIPPED
from waveflow.threads import use_threads
from waveflow.training.curve import curve_table, draw_curve, read_curve
from waveflow.training.image_grids import draw_samples, draw_temperatures
from waveflow.training.minutes import Minutes
from waveflow.training.run_folder import RunFolder
from waveflow.training.staged_folder import staged_folder

LIMIT = 8_000_000  # bytes of weights
MNIST = "MNIST (Yann LeCun, Corinna Cortes and Christopher Burges) is, as commonly stated, under CC BY-SA 3.0."
SETTINGS = ("learning_rate", "precision", "ema_decay", "seed")


@dataclass(frozen=True)
class Arguments:
    """Make a folder that can be shipped of a training run on images whose rights allow it.

    Args:
        run: Folder that a recipe of images left. Its best model is taken, where it kept one, otherwise its last.
        path: Where its images are, unless that is where they were.
        name: Name of the model (default: that of the run's folder).
        hardware: What it was trained on, in words, for the card.
        rights: In the images, a sentence for the card (default: those of MNIST).
        temperature: Of the samples.
        out: Folder that the model's folder is made in (default: checkpoints/ in the package).
        replace: Put it in the place of one of that name.
        batch_size: Images at a time.
        threads: CPU threads of PyTorch.
        seed: Of noise and samples.
    """

    run: str | None = None
    path: str | None = None
    name: str | None = None
    hardware: str | None = None
    rights: str = MNIST
    temperature: float = 0.7
    out: str | None = None
    replace: bool = False
    batch_size: int = 250
    threads: int = 1
    seed: int = 0

    def __post_init__(self):
        for name in ("run", "hardware"):
            if not getattr(self, name):
                raise InputError(f"--{name} has to be given")
        if self.batch_size < 1 or not self.temperature >= 0:
            raise InputError("--batch-size expects at least 1, --temperature at least 0")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    use_threads(args.threads)
    run, root = RunFolder(args.run), Path(args.out or SHIPPED)
    name = args.name or run.path.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise InputError(f"--name expects letters, digits, '-', '_' and '.', got {name!r}")
    _, checkpoint = run.load()
    kept = run.path / "best" / "best.json"
    step = json.loads(kept.read_text())["step"] if kept.exists() else checkpoint["state"]["step"]
    trained = ImageModel.from_pretrained(kept.parent if kept.exists() else run.path)
    images = images_of(run, args)

    with staged_folder(root / name, args.replace) as folder:
        save_rounded(trained, folder)
        size = (folder / "model.safetensors").stat().st_size
        if size > LIMIT:
            raise InputError(
                f"{run.path}: the weights are {size / 1e6:.1f} MB when rounded, at most {LIMIT / 1e6:g} do"
            )
        shipped = ImageModel.from_pretrained(folder)
        figures = {
            "device": device_name("cpu"),
            "seed": args.seed,
            "trained": measure(trained, images, args),
            "shipped": measure(shipped, images, args),
        }
        write_whole(folder / "figures.json", (json.dumps(figures, indent=2) + "\n").encode())
        draw_samples(folder / "samples.png", shipped, 64, args.temperature, args.seed)
        draw_temperatures(folder / "temperatures.png", shipped, args.seed)
        minutes = curves(run, folder)
        training = {
            "images": len(images.train),
            "batch": checkpoint["settings"]["batch_size"],
            "step": step,
            "hardware": args.hardware,
            "time": f"{minutes.at.get(step, minutes.total):.1f} {minutes.unit}",
            "settings": ", ".join(f"{key.replace('_', ' ')} {checkpoint['settings'][key]}" for key in SETTINGS),
        }
        card = model_card(name, shipped, images, size, training, figures, args)
        write_whole(folder / "README.md", card.encode())
    print(f"{root / name}: {size / 1e6:.2f} MB of weights; read {root / name / 'README.md'}")


def save_rounded(model: ImageModel, folder: Path) -> None:
    """Save a model with the weights of its convolutions in bfloat16 and all else as it is.

    Scales, shifts and 1x1 convolutions of a flow are few, but each acts on all positions of the image: rounding them
    costs bits.

    Raises:
        InputError: if a weight is not finite in bfloat16.
        OSError: if the folder cannot be written.
    """
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    for name, parameter in model.named_parameters():
        if parameter.ndim > 2:
            weights[name] = weights[name].bfloat16()
            if not weights[name].isfinite().all():
                raise InputError(f"{name} holds values that are not finite in bfloat16")
    write_whole(folder / "model.safetensors", save(weights))


def images_of(run: RunFolder, args: Arguments) -> ImageSet:
    """The images that the run was trained on, as its record names them.

    Raises:
        InputError: if the record is missing or no such thing.
    """
    record = run.logs / "data.json"
    try:
        said = json.loads(record.read_bytes())
        chosen = {key: said[key] for key in ("size", "channels", "binary")}
        data, path, conditional = said["data"], args.path or said["path"], said["conditional"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise InputError(f"{record}: expected the record of a recipe of images") from None
    if conditional:
        raise InputError(f"{run.path}: models that are told labels are not shipped yet")
    return load_images(data, path, **chosen, seed=args.seed)


def measure(model: ImageModel, images: ImageSet, args: Arguments) -> dict[str, Any]:
    """Likelihood of all test images; how far a flow's inverse is off, and how many pixels it changes."""
    found = image_likelihood_of(model, images.test, args.batch_size, args.seed)
    figures = _numbers(found)
    if isinstance(model, ImageFlow):
        some = images.test.images[: args.batch_size]
        error = model.flow.inverse_error((some + 0.5) / model.config.values).max().item()
        changed = int((model.decode(model.encode(some)) != some).sum())
        figures |= {"inverse_error": error, "pixels_changed": changed, "pixels": some.numel()}
    return figures


def _numbers(found: ImageLikelihood) -> dict[str, Any]:
    return {
        "bits_per_dim": found.bits_per_dim,
        "standard_error": found.standard_error,
        "nats": -found.nats,
        "images": found.images,
        "exact": found.exact,
    }


def curves(run: RunFolder, folder: Path) -> Minutes:
    """Write the training curve over all sittings; what training has cost."""
    metrics, minutes = run.logs / "metrics.csv", Minutes(run.logs / "minutes.json", torch.device("cpu"))
    minutes.unit = json.loads((run.logs / "minutes.json").read_bytes())["unit"]
    train, validation = (read_curve(metrics, f"{part}/bits_per_dim") for part in ("train", "validate"))
    nats = read_curve(metrics, "validate/negative_log_likelihood")
    clock = {0: 0.0} | minutes.at
    write_whole(folder / "training.csv", curve_table(train, validation, nats, clock, minutes.unit))
    draw_curve(folder / "training.png", train, validation, clock, minutes.unit)
    return minutes


def model_card(
    name: str,
    model: ImageModel,
    images: ImageSet,
    size: int,
    training: Mapping[str, Any],
    figures: Mapping[str, Any],
    args: Arguments,
) -> str:
    """The card in Markdown: what it is, what made it, what was measured, where it ends."""
    kind, shape = type(model).__name__, "x".join(map(str, model.image_shape))
    count = sum(parameter.numel() for parameter in model.parameters())
    before, after = figures["trained"], figures["shipped"]
    bound = "exact" if after["exact"] else "an upper bound, with one draw of noise an image"
    rows = [
        ("bits/dim", *(f"{one['bits_per_dim']:.4f} ± {one['standard_error']:.4f}" for one in (before, after))),
        ("nats an image", *(f"{one['nats']:.2f}" for one in (before, after))),
    ]
    if "pixels" in after:
        changed = "pixels changed by encoding and decoding"
        rows += [
            ("largest error of the inverse", *(f"{one['inverse_error']:.1e}" for one in (before, after))),
            (changed, *(f"{one['pixels_changed']} of {one['pixels']:,}" for one in (before, after))),
        ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    dequantisation = getattr(model.config, "dequantisation", None)
    seen = training["step"] * training["batch"] / training["images"]
    return f"""# {name}

A {kind} ({count:,} parameters) of images {shape} with {model.config.values} values a pixel, learnt from {images.name}.

    waveflow sample {name} --n 64 --temperature {args.temperature:g} --out grid.png --zoom 4

```python
from waveflow.models import load_model

images = load_model("{name}").sample(64, temperature={args.temperature:g})  # uint8 {(64, *model.image_shape)}
```

Weights: `model.safetensors`, {size / 1e6:.2f} MB, those of convolutions rounded to bfloat16; they run in float32.

![64 samples at temperature {args.temperature:g}](samples.png)

The same noise at temperatures from 0.3 (top) to 1:

![Samples at seven temperatures](temperatures.png)

## Training

| | |
| --- | --- |
| data | {images.name}, {training["images"]:,} images{f"; {images.note}" if images.note else ""} |
| steps | {training["step"]:,} of {training["batch"]} images: every one {seen:.1f} times |
| settings | {training["settings"]}{f", {dequantisation} dequantisation" if dequantisation else ""} |
| hardware | {training["hardware"]} |
| time | {training["time"]} |

The weights are the average that the run keeps. Curve: [training.csv](training.csv).

![Bits per dimension while training](training.png)

## Figures

On all {after["images"]:,} test images ({bound}). Measured by the script that made this folder, on {figures["device"]}.

| | as trained | as shipped |
| --- | --- | --- |
{table}

## Limits

It knows images like those it learnt from, of that size, and nothing else.

## Rights

{args.rights}
The weights and the samples here are under the licence of this repository, MIT.
"""


if __name__ == "__main__":
    sys.exit(run_command(main, "ship.py"))

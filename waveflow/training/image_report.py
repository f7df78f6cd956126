"""What is known of a model of images when its training is over."""

import json
import math
from typing import Any

import torch

from waveflow.atomic import write_whole
from waveflow.data import ImageSet
from waveflow.evaluation.image_likelihood import ImageLikelihood, image_likelihood_of
from waveflow.models import GatedPixelCNN, ImageFlow, ImageModel, PixelCNN
from waveflow.training.best_model import BestModel
from waveflow.training.curve import curve_table, draw_curve, read_curve
from waveflow.training.image_arguments import ImageArguments
from waveflow.training.image_data import some
from waveflow.training.image_grids import draw_completions, draw_interpolations, draw_samples, draw_temperatures
from waveflow.training.minutes import Minutes
from waveflow.training.run_folder import RunFolder


def report(
    folder: RunFolder,
    best: BestModel,
    images: ImageSet,
    minutes: Minutes,
    args: ImageArguments,
    device: torch.device,
    steps: int,
) -> None:
    """Test the model of the best validation, an averaged one, on images never looked at; draw what it can do.

    Leaves ``test.json``, ``curve.csv`` and ``curve.png`` in the logs, grids among the samples, and says so. Where no
    validation was finite, the model of the last save is tested.

    Raises:
        FloatingPointError: if the likelihood is not finite.
        OSError: if a file cannot be written.
    """
    tested = folder.path if best.step is None else best.folder
    model = ImageModel.from_pretrained(tested, device)
    chosen = some(images.test, args.test_images)
    found = image_likelihood_of(model, chosen, args.batch_size, args.seed)
    content = {
        "model": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dequantisation": getattr(model.config, "dequantisation", None),
        "seed": args.seed,
        "steps": steps,
        "tested_step": steps if best.step is None else best.step,
        "data": images.name,
        "note": images.note,
        "training_images": len(images.train),
        **_figures(found, len(images.test)),
    }
    write_whole(folder.logs / "test.json", (json.dumps(content, indent=2) + "\n").encode())
    validation = read_curve(folder.logs / "metrics.csv", "validate/bits_per_dim")
    train = read_curve(folder.logs / "metrics.csv", "train/bits_per_dim")
    clock = {0: 0.0} | minutes.at
    nats = read_curve(folder.logs / "metrics.csv", "validate/negative_log_likelihood")
    write_whole(folder.logs / "curve.csv", curve_table(train, validation, nats, clock, minutes.unit))
    draw_curve(folder.logs / "curve.png", train, validation, clock, minutes.unit)
    try:
        _draw(folder, model, images, args)
    except FloatingPointError as error:
        print(f"not all grids could be drawn: {error}", flush=True)

    first, *_, last = (0, *sorted(validation))
    print(
        f"validation: {validation[first]:.3f} -> {validation[last]:.3f} bits/dim in {steps:,} steps, "
        f"{minutes.total:.1f} {minutes.unit}"
    )
    if best.figure < validation[last] - 0.01:
        print(f"it was better at step {best.step:,}, {best.figure:.3f}: the model has begun to learn images by heart")
    kind = "exact" if found.exact else "an upper bound, with one draw of noise an image"
    which = f"all {found.images:,}" if found.images == len(images.test) else f"{found.images:,} of {len(images.test):,}"
    print(f"test: {found.bits_per_dim:.4f} ± {found.standard_error:.4f} bits/dim on {which} images ({kind})")
    if images.values == 2:
        print(f"test: {-found.nats:.2f} ± {found.nats_standard_error:.2f} nats an image; {images.note}")
    if best.step is not None and best.step != steps:
        print(f"tested is the model of step {best.step:,}, whose validation was the best")
    print(f"model: {tested}   figures: {folder.logs / 'test.json'}   pictures: {folder.samples}")


def _figures(found: ImageLikelihood, of: int) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return None if math.isnan(value) else value  # JSON knows no NaN

    return {
        "test_images": found.images,
        "test_images_there_are": of,
        "bits_per_dim": found.bits_per_dim,
        "standard_error": number(found.standard_error),
        "negative_log_likelihood_nats": -found.nats,
        "negative_log_likelihood_standard_error": number(found.nats_standard_error),
        "exact": found.exact,
    }


def _draw(folder: RunFolder, model: ImageModel, images: ImageSet, args: ImageArguments) -> None:
    draw_samples(folder.samples / "samples.png", model, args.samples, args.temperature, args.seed)
    draw_temperatures(folder.samples / "temperatures.png", model, args.seed)
    if isinstance(model, ImageFlow):
        draw_interpolations(folder.samples / "interpolations.png", model, images.test)
    elif isinstance(model, PixelCNN | GatedPixelCNN):
        draw_completions(folder.samples / "completions.png", model, images.test, args.temperature, args.seed)

"""Log-likelihood of images, by one definition for all models."""

import math
from dataclasses import dataclass

import torch

from waveflow.data import Images
from waveflow.distributions.bits import bits_per_dim
from waveflow.errors import InputError
from waveflow.models import ImageModel


@dataclass(frozen=True)
class ImageLikelihood:
    """How probable a model finds images.

    Attributes:
        bits_per_dim: mean over the images of minus log2 P(x), divided by channels * height * width.
        standard_error: of that mean, as an estimate for all images of the kind; NaN for a single image.
        nats: mean log-probability of a whole image, in nats.
        nats_standard_error: of that mean.
        images: how many there were.
        exact: whether it is the model's probability itself; otherwise ``bits_per_dim`` is an upper bound, estimated
            with one draw of noise for each image.
    """

    bits_per_dim: float
    standard_error: float
    nats: float
    nats_standard_error: float
    images: int
    exact: bool


@torch.no_grad()
def image_likelihood_of(model: ImageModel, images: Images, batch_size: int = 100, seed: int = 0) -> ImageLikelihood:
    """Mean log-likelihood of images, each counted once.

    Args:
        model: called in evaluation mode, which is put back afterwards. With classes, it is given the labels.
        images: with labels, if the model has classes; labels that it has no use for are left out.
        batch_size: images in memory at a time; the noise of a bound follows from it and the seed.
        seed: of that noise.

    Raises:
        InputError: for no images, or what the model refuses.
        FloatingPointError: if the likelihood is not finite.
    """
    if not len(images):
        raise InputError("the likelihood needs at least one image, got none")
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    training = model.training
    model.eval()
    try:
        nats = torch.cat(
            [
                model.log_prob(
                    part["images"].to(device),
                    part["label"].to(device) if model.config.classes and "label" in part else None,
                    generator,
                )
                for part in images.batches(batch_size)
            ]
        ).double()
    finally:
        model.train(training)
    if not nats.isfinite().all():
        raise FloatingPointError(
            f"the log-likelihood of {int((~nats.isfinite()).sum())} of {len(nats)} images is not finite"
        )
    mean = nats.mean().item()
    error = (nats.std() / len(nats) ** 0.5).item() if len(nats) > 1 else math.nan
    dims = math.prod(images.shape)
    return ImageLikelihood(
        bits_per_dim(mean, dims), abs(bits_per_dim(error, dims)), mean, error, len(nats), model.exact
    )

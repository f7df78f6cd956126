"""The likelihood of a set of images."""

import math

import pytest
import torch

from waveflow.data import Images
from waveflow.errors import InputError
from waveflow.evaluation.image_likelihood import image_likelihood_of
from waveflow.models import NICE, GatedPixelCNN
from waveflow.training.image_data import some


@pytest.fixture
def images():
    pixels = torch.randint(17, (23, 1, 8, 8), dtype=torch.uint8)
    return Images(pixels, torch.arange(23) % 10, values=17)


def perturbed(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_is_the_mean_over_images_whatever_the_batches(images):
    model = perturbed(GatedPixelCNN.from_preset("digits", hidden=6, layers=1, classes=10)).eval()
    nats = torch.stack([model.log_prob(i[None], l[None])[0] for i, l in zip(images.images, images.labels, strict=True)])
    nats = nats.detach().double()
    for batch_size in (1, 7, 100):
        found = image_likelihood_of(model, images, batch_size)
        assert found.nats == pytest.approx(nats.mean().item(), rel=1e-5)
        assert found.nats_standard_error == pytest.approx(nats.std().item() / math.sqrt(23), rel=1e-4)
        assert found.bits_per_dim == pytest.approx(-nats.mean().item() / (64 * math.log(2)), rel=1e-5)
        assert found.standard_error == pytest.approx(found.nats_standard_error / (64 * math.log(2)))
        assert found.images == 23 and found.exact


def test_of_a_bound_follows_from_the_seed_alone(images):
    model = perturbed(NICE.from_preset("digits", hidden=(8,))).train()
    found = image_likelihood_of(model, images, 10)  # labels that the model has no use for
    torch.rand(5)
    assert found == image_likelihood_of(model, images, 10) and not found.exact and model.training
    assert found.nats != image_likelihood_of(model, images, 10, seed=1).nats


def test_refuses_what_has_no_mean(images):
    model = NICE.from_preset("digits", hidden=(8,))
    with pytest.raises(InputError, match="at least one image, got none"):
        image_likelihood_of(model, images.take(slice(0)))
    assert math.isnan(image_likelihood_of(model, images.take(slice(1))).standard_error)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(FloatingPointError, match="23 of 23 images is not finite"):
        image_likelihood_of(model, images)


def test_some_images_are_spread_over_all():
    images = Images(torch.arange(100, dtype=torch.uint8).reshape(100, 1, 1, 1))
    assert some(images, 4).images.flatten().tolist() == [0, 25, 50, 75]
    assert len(some(images, 0)) == len(some(images, 100)) == len(some(images, 1000)) == 100

"""The masked-convolution flow: its density, its inverse, what it learns and refuses."""

import math

import pytest
import torch

from waveflow.distributions import image_likelihood
from waveflow.errors import InputError
from waveflow.models import MaskedConvFlow, load_model
from waveflow.testing import check_bijector

SMALL = {"height": 4, "width": 5, "values": 17, "hidden": 8, "layers": 2, "first_kernel": 5}


def perturbed(model, size=0.1):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model


def images_of(model, n=4):
    return torch.randint(
        model.config.values, (n, *model.image_shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("fields", [{}, {"channels": 2, "classes": 3}, {"steps": 3, "memory": "invert"}], ids=str)
def test_is_a_bijector(fields):
    model = MaskedConvFlow(**{**SMALL, "height": 2, "width": 3, **fields})
    context = torch.eye(3)[:2] if model.config.classes else None
    check_bijector(model.flow.bijector, 0.1 + 0.8 * torch.rand(2, *model.image_shape), context)


def test_a_new_model_says_that_logits_are_standard_normal():
    model = MaskedConvFlow(**SMALL)
    y = torch.rand(3, 1, 4, 5, dtype=torch.float64)
    z = torch.logit(0.05 + 0.9 * y)
    slope = 0.9 / (torch.sigmoid(z) * (1 - torch.sigmoid(z)))
    expected = (-0.5 * z.square() - 0.5 * math.log(2 * math.pi) + slope.log()).sum((1, 2, 3))
    torch.testing.assert_close(model.double().flow.log_prob(y), expected)
    assert not model.exact


@pytest.mark.parametrize("steps", [1, 2])
def test_every_pixel_follows_from_those_before_it_and_with_a_second_map_from_all(steps):
    model = perturbed(MaskedConvFlow(**{**SMALL, "layers": 3, "steps": steps}), 0.5).double()
    y = torch.rand(20, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda y: model.flow.bijector(y.reshape(1, 1, 4, 5))[0].flatten(), y)
    if steps == 1:
        assert not jacobian.triu(1).any() and (jacobian.tril() != 0).sum() == 210
    else:
        assert (jacobian != 0).all()


@pytest.mark.parametrize("solver", ["sequential", "jacobi"])
def test_decoding_gives_back_what_was_encoded(solver):
    model = perturbed(MaskedConvFlow(**{**SMALL, "values": 256, "channels": 3, "steps": 3}))
    for layer in model.flow.bijector:
        if hasattr(layer, "solver"):
            layer.solver = solver
    images = images_of(model, 10)
    z = model.encode(images)
    assert z.shape == images.shape and torch.equal(model.decode(z), images)


def test_samples_are_images_and_follow_the_density():
    # Of a single pixel: how often a value is drawn against the integral of the density over its interval.
    model = perturbed(MaskedConvFlow(height=1, width=1, values=4, hidden=4, layers=1, first_kernel=3, steps=2))
    drawn = model.sample(20_000, generator=torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.uint8 and drawn.shape == (20_000, 1, 1, 1)
    y = torch.linspace(-0.2, 1.2, 14_001)
    density = model.flow.log_prob(y.reshape(-1, 1, 1, 1).clamp(-0.05, 1.05)).exp()
    density = torch.where((y > -0.05) & (y < 1.05), density, 0.0).detach()
    value = (4 * y).floor().clamp(0, 3)
    for k, count in enumerate(drawn.flatten().long().bincount(minlength=4) / 20_000):
        assert abs(count - density[value == k].sum() * 1e-4) < 0.015


def test_inverted_memory_gives_the_same_gradients():
    gradients = []
    for memory in ("store", "invert"):
        torch.manual_seed(0)
        model = perturbed(MaskedConvFlow(**SMALL, memory=memory)).double()
        assert model.flow.bijector.memory == memory
        loss = model.log_prob(images_of(model), generator=torch.Generator().manual_seed(0)).sum()
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    torch.testing.assert_close(*gradients)


def test_labels_matter_and_images_are_learned():
    torch.manual_seed(0)
    model = MaskedConvFlow(**SMALL, classes=2)
    images, label = images_of(model, 2), torch.tensor([0, 1])
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = image_likelihood(model, {"images": images, "label": label})["loss"].item()
    for _ in range(80):
        optimizer.zero_grad()
        image_likelihood(model, {"images": images, "label": label})["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        bits = model.bits_per_dim(images, label)
        assert bits.max() < first - 2  # four bits for 17 values at first
        assert (model.bits_per_dim(images, 1 - label) > bits + 2).all()
    near, far = ((model.sample(20, 0.3, label=k).float() - images[0]).abs().mean() for k in (0, 1))
    assert near < 0.5 * far


@pytest.mark.parametrize("preset", MaskedConvFlow.PRESETS)
def test_can_be_saved_and_loaded(preset, tmp_path):
    model = perturbed(MaskedConvFlow.from_preset(preset, hidden=4, layers=1, classes=2), 0.05)
    model.save_pretrained(tmp_path)
    loaded, images, label = load_model(tmp_path), images_of(model), torch.tensor([0, 1, 0, 1])
    assert type(loaded) is MaskedConvFlow and loaded.config == model.config
    assert torch.equal(loaded.encode(images, label), model.encode(images, label))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "MaskedConvFlow expects steps of at least 1, got 0"),
        ({"hidden": 2, "channels": 3}, "MaskedConvFlow expects hidden of at least 3, got 2"),
        ({"kernel": 2}, "MaskedConvFlow expects kernel odd and at least 3, got 2"),
        ({"scale": "softplus"}, "MaskedConvFlow expects scale .*, got 'softplus'"),
        ({"memory": "none"}, "MaskedConvFlow expects memory .*, got 'none'"),
    ],
)
def test_bad_settings_are_named(fields, message):
    with pytest.raises(InputError, match=message):
        MaskedConvFlow(**fields)

"""The face of image models: what it gives, and what it refuses, line by line."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from waveflow.bijectors import ActNorm, Affine, Chain, Elementwise
from waveflow.distributions import bits_per_dim, image_likelihood
from waveflow.errors import InputError
from waveflow.models import (
    NICE,
    ImageFlow,
    ImageFlowConfig,
    ImageModel,
    ImageModelConfig,
    NICEConfig,
    RealNVP,
    RealNVPConfig,
    load_model,
)


class Uniform(ImageModel):
    """Every image is as likely as every other; it remembers its context."""

    Config = ImageModelConfig

    def build(self):
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def _log_prob(self, images, context, generator):
        self.seen = context
        return self.weight - math.prod(self.image_shape) * math.log(self.config.values) * torch.ones(len(images))

    def _sample(self, n, context, temperature, generator):
        self.seen = context
        return torch.randint(self.config.values, (n, *self.image_shape), generator=generator, dtype=torch.uint8)


class Gaussian(ImageFlow):
    """Independent normal pixels: z = exp(raw) y + shift."""

    Config = ImageFlowConfig

    @staticmethod
    def bijector(config):
        return Chain([Elementwise(Affine("exp"), config.image_shape)], config.memory)


def images(*shape, values=256, seed=0):
    return torch.randint(values, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_a_uniform_model_needs_all_bits():
    model = Uniform(channels=3, height=4, width=5)
    x = images(6, 3, 4, 5)
    torch.testing.assert_close(model.bits_per_dim(x), torch.full((6,), 8.0))
    torch.testing.assert_close(model(x), torch.full((6,), -60 * math.log(256)))
    assert model.exact and model.image_shape == (3, 4, 5)
    assert bits_per_dim(-60 * math.log(2), dims=60) == pytest.approx(1.0)


def test_labels_reach_the_networks_one_hot():
    model = Uniform(height=2, width=2, classes=3)
    model.log_prob(images(2, 1, 2, 2), torch.tensor([2, 0]))
    assert model.seen.tolist() == [[0, 0, 1], [1, 0, 0]] and model.seen.dtype == torch.float32
    model.sample(2, label=torch.tensor([1, 2]))
    assert model.seen.tolist() == [[0, 1, 0], [0, 0, 1]]
    model.sample(2, label=1)
    assert model.seen.tolist() == [[0, 1, 0], [0, 1, 0]]
    model.double().log_prob(images(1, 1, 2, 2), torch.tensor([2], dtype=torch.uint8))
    assert model.seen.dtype == torch.float64


def test_image_likelihood_is_the_mean_of_bits():
    model, x = Uniform(height=2, width=2, values=16, classes=2), images(5, 1, 2, 2, values=16)
    figures = image_likelihood(model, {"images": x, "label": torch.tensor([0, 1, 0, 1, 1])})
    figures["loss"].backward()
    assert figures["loss"].item() == pytest.approx(4.0)
    assert figures["bits_per_dim"].item() == pytest.approx(4.0) and not figures["bits_per_dim"].requires_grad
    assert model.weight.grad.item() == pytest.approx(-1 / (4 * math.log(2)))
    assert model.seen is not None


def test_a_flow_bounds_the_probability_of_its_pixels():
    model = Gaussian(height=1, width=2, values=4).double()
    with torch.no_grad():
        model.flow.bijector[0].raw[0] = torch.tensor([-1.0, 0.5])  # shift
        model.flow.bijector[0].raw[1] = torch.tensor([1.5, 2.0])  # log scale
    shift, scale = np.array([-1.0, 0.5]), np.exp([1.5, 2.0])
    x = torch.cartesian_prod(torch.arange(4), torch.arange(4)).to(torch.uint8).reshape(16, 1, 1, 2)
    edges = norm.cdf(scale * (np.arange(5)[:, None] / 4) + shift)
    exact = np.log(np.diff(edges, axis=0)[x.reshape(16, 2), [0, 1]]).sum(1)
    draws = torch.stack([model.log_prob(x) for _ in range(2000)])
    bound = draws.mean(0).detach().numpy()
    assert (bound < exact + 0.02).all() and (bound < exact - 0.05).any()
    # Jensen's other side: the mean of the probabilities is the probability.
    np.testing.assert_allclose(draws.exp().mean(0).detach().numpy(), np.exp(exact), rtol=0.15)
    assert not model.exact


def test_the_bound_is_reproducible_with_a_generator():
    for model in (Gaussian(height=2, width=2), Gaussian(height=2, width=2, dequantisation="variational")):
        x = images(3, 1, 2, 2)
        first, second = (model.log_prob(x, generator=torch.Generator().manual_seed(1)) for _ in range(2))
        assert torch.equal(first, second) and not torch.equal(first, model.log_prob(x))


def test_samples_are_those_of_the_continuous_flow_rounded_down():
    model = Gaussian(height=3, width=2, values=10)
    with torch.no_grad():
        model.flow.bijector[0].raw[0] = -2.0
        model.flow.bijector[0].raw[1] = math.log(4)
    drawn = model.sample(50, generator=torch.Generator().manual_seed(3))
    y = model.flow.sample((50,), generator=torch.Generator().manual_seed(3))
    expected = np.clip(np.floor(y.detach().numpy() * 10), 0, 9)
    assert drawn.dtype == torch.uint8 and (drawn.numpy() == expected).all()
    assert (model.sample(4, temperature=0.0) == 5).all()  # the mean, 0.5
    assert model.sample(0).shape == (0, 1, 3, 2)


def test_latents_come_back_as_the_same_images_and_empty_batches_as_such():
    model = Gaussian(channels=3, height=4, width=2)
    x = images(20, 3, 4, 2)
    z = model.encode(x)
    torch.testing.assert_close(z, (x + 0.5) / 256)  # the identity, until trained
    assert torch.equal(model.decode(z), x)
    # Half a pixel value is to spare on either side.
    assert torch.equal(model.decode(z + 0.49 / 256), x) and torch.equal(model.decode(z - 0.49 / 256), x)
    empty = x[:0]
    assert model.log_prob(empty).shape == (0,) and model.decode(model.encode(empty)).shape == (0, 3, 4, 2)


def test_initialize_sees_pixels_and_leaves_the_mode_alone():
    class Normed(Gaussian):
        @staticmethod
        def bijector(config):
            return ActNorm(config.channels)

    model = Normed(height=8, width=8).eval()
    x = images(40, 1, 8, 8)
    model.initialize(x)
    assert not model.training
    z = model.encode(x)
    assert abs(z.mean().item()) < 0.02 and z.std().item() == pytest.approx(1, abs=0.02)


CLASSED = Uniform(height=2, width=2, classes=3)
BINARY = Uniform(height=2, width=2, values=2)
COLOUR = Gaussian(channels=3, height=2, width=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: COLOUR.log_prob(torch.rand(2, 3, 2, 2)),
            r"Gaussian.log_prob expects uint8 images with pixels 0 ... 255, got torch.float32; "
            r"floats in \[0, 1\] become pixels by \(images \* 255\).round\(\).to\(torch.uint8\)",
        ),
        (
            lambda: BINARY.log_prob(torch.rand(2, 1, 2, 2).round()),
            r"pixels 0 ... 1, got torch.float32; .* by \(images \* 1\)",
        ),
        (
            lambda: COLOUR.encode(torch.zeros(2, 3, 2, 2, dtype=torch.int64)),
            r"Gaussian.encode expects uint8 .* got torch.int64; convert by images.to\(torch.uint8\)",
        ),
        (
            lambda: COLOUR.decode(images(2, 3, 2, 2)),
            r"Gaussian.decode expects latents \(B, 3, 2, 2\) of floats, got torch.uint8 \(2, 3, 2, 2\)",
        ),
        (lambda: COLOUR.decode(torch.zeros(2, 12)), r"latents \(B, 3, 2, 2\) of floats, got torch.float32 \(2, 12\)"),
        (lambda: COLOUR.log_prob(images(2, 1, 2, 2)), r"expects images \(B, 3, 2, 2\), got \(2, 1, 2, 2\)"),
        (lambda: COLOUR.log_prob(images(2, 3, 2, 4)), r"expects images \(B, 3, 2, 2\), got \(2, 3, 2, 4\)"),
        (lambda: COLOUR.log_prob(images(3, 2, 2)), r"expects images \(B, 3, 2, 2\), got \(3, 2, 2\)"),
        (lambda: COLOUR.bits_per_dim(np.zeros((2, 3, 2, 2))), "expects a torch tensor of images, got ndarray"),
        (lambda: BINARY.log_prob(images(9, 1, 2, 2)), r"Uniform.log_prob expects pixels 0 ... 1, got one of 2\d\d"),
        (lambda: BINARY.log_prob(images(1, 1, 2, 2, values=2), torch.tensor([0])), "no label, .* no classes, got one"),
        (lambda: CLASSED.log_prob(images(2, 1, 2, 2)), "a label 0 ... 2 for each of 2 images, got None"),
        (lambda: CLASSED.sample(2), "Uniform.sample expects a label 0 ... 2 for each of 2 images, got None"),
        (lambda: CLASSED.sample(2, label=3), r"Uniform.sample expects a label 0 ... 2, got 3"),
        (lambda: CLASSED.sample(2, label=-1), r"Uniform.sample expects a label 0 ... 2, got -1"),
        (lambda: CLASSED.sample(2, label=10**30), r"Uniform.sample expects a label 0 ... 2, got 10{30}$"),
        (lambda: CLASSED.sample(2, label=True), "as a torch tensor, got bool"),
        (lambda: Uniform().sample(2, label=10**30), "expects no label"),
        (lambda: CLASSED.sample(2, label=[0, 1]), "as a torch tensor, got list"),
        (
            lambda: CLASSED.log_prob(images(2, 1, 2, 2), torch.tensor([0, -1])),
            "a label 0 ... 2 for each of 2 images, got labels from -1 to 0",
        ),
        (lambda: CLASSED.log_prob(images(2, 1, 2, 2), torch.tensor([0])), r"as int64 \(2,\), got torch.int64 \(1,\)"),
        (lambda: CLASSED.log_prob(images(2, 1, 2, 2), torch.zeros(2)), r"as int64 \(2,\), got torch.float32 \(2,\)"),
        (lambda: COLOUR.encode(images(2, 3, 2, 2), torch.tensor([0, 0])), "expects no label"),
        (lambda: COLOUR.sample(-1), "number of images n of at least 0, got -1"),
        (lambda: COLOUR.sample(2.0), "number of images n of at least 0, got 2.0"),
        (lambda: COLOUR.sample(2, temperature=-0.1), "temperature of at least 0, got -0.1"),
        (lambda: COLOUR.sample(2, temperature=math.nan), "temperature of at least 0, got nan"),
        (lambda: Uniform(channels=0), "ImageModel expects channels of at least 1, got 0"),
        (lambda: Uniform(values=257), "ImageModel expects 2 to 256 values of a pixel, got 257"),
        (lambda: Uniform(values=1), "2 to 256 values of a pixel, got 1"),
        (lambda: Uniform(classes=-1), "classes of at least 0, got -1"),
        (lambda: Gaussian(dequantisation="none"), 'dequantisation "uniform" or "variational", got \'none\''),
        (lambda: Gaussian(memory="none"), 'ImageFlow expects memory "store" or "invert", got \'none\''),
        (lambda: Gaussian(width=7, dequantisation="variational"), "even width for variational dequantisation, got 7"),
        (lambda: Gaussian(dequantisation_hidden=0), "dequantisation_hidden of at least 1, got 0"),
        (lambda: NICE(height=3, width=3), r"NICE expects an even number of pixels and channels, got \(1, 3, 3\)"),
        (lambda: NICE(layers=0), "NICE expects layers of at least 1, got 0"),
        (lambda: NICE(hidden=()), r"NICE expects hidden of at least 1, got \(\)"),
        (lambda: NICE(prior="laplace"), 'NICE expects prior "logistic" or "gaussian", got \'laplace\''),
        (
            lambda: RealNVP.from_preset("mnist", levels=3),
            "RealNVP expects height and width divisible by 8 for 3 levels, got 28x28",
        ),
        (lambda: RealNVP(width=30), "divisible by 4 for 2 levels, got 28x30"),
        (lambda: RealNVP(levels=0), "RealNVP expects levels of at least 1, got 0"),
        (lambda: RealNVP(blocks=0), "RealNVP expects blocks of at least 1, got 0"),
        (lambda: RealNVP(norm="layer"), 'RealNVP expects norm "batch" or "actnorm", got \'layer\''),
        (lambda: RealNVP(alpha=0.0), "RealNVP expects alpha within 0 and 0.5, got 0.0"),
        (lambda: RealNVP(memory="invert"), 'RealNVP expects norm "actnorm" for memory "invert"'),
        (lambda: RealNVP(squeeze=2), "RealNVP has no field squeeze; its fields are alpha, blocks, channels"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_uint8_handed_to_the_continuous_flow_is_refused():
    with pytest.raises(ValueError, match=r"Chain expects a floating tensor, got torch.uint8"):
        COLOUR.flow.log_prob(images(2, 3, 2, 2))


def test_numbers_that_are_not_finite_are_not_made_pixels():
    model = Gaussian(height=2, width=2)
    with pytest.raises(FloatingPointError, match=r"Gaussian\.decode gave pixels that are not finite"):
        model.decode(torch.full((1, 1, 2, 2), math.inf))
    with torch.no_grad():
        model.flow.bijector[0].raw[0] = math.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        model.sample(1)


@pytest.mark.parametrize(
    "model",
    [
        NICE(height=4, width=4, hidden=(8,), classes=2, dequantisation="variational"),
        RealNVP(height=4, width=4, blocks=1, hidden=4),
    ],
    ids=["NICE", "RealNVP"],
)
def test_is_saved_and_loaded(model, tmp_path):
    x = images(8, 1, 4, 4)
    label = torch.arange(8) % 2 if model.config.classes else None
    model.train().log_prob(x, label)  # initialises
    model.eval().save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.config == model.config and type(loaded.config) in (NICEConfig, RealNVPConfig)
    a, b = (m.log_prob(x, label, torch.Generator().manual_seed(0)) for m in (model, loaded))
    assert torch.equal(a, b)

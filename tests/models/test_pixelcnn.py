"""PixelCNN and Gated PixelCNN: what they compute, learn, draw and refuse."""

import math

import pytest
import torch

from waveflow.bijectors.solvers import Jacobi, Sequential
from waveflow.distributions import Bernoulli, Categorical, DiscretisedMixtureOfLogistics, image_likelihood
from waveflow.errors import InputError
from waveflow.models import GatedPixelCNN, PixelCNN, load_model

MODELS = {"PixelCNN": PixelCNN, "GatedPixelCNN": GatedPixelCNN}
SMALL = {"height": 5, "width": 6, "hidden": 12, "layers": 2, "first_kernel": 5}
VARIANTS = {
    "categorical": {"values": 7},
    "bernoulli, labels": {"values": 2, "classes": 3},
    "logistics, colour": {"channels": 3, "head": "logistics", "components": 2},
}


def make(name, variant="categorical", **fields):
    return MODELS[name](**{**SMALL, **VARIANTS[variant], **fields})


def perturbed(model, size=0.3):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model


def images_of(model, n=4, seed=0):
    return torch.randint(
        model.config.values, (n, *model.image_shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def label_of(model, n=4):
    return torch.arange(n) % model.config.classes if model.config.classes else None


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("values", "head"), [(256, None), (17, None), (2, None), (2, "categorical")])
def test_a_new_model_takes_all_values_for_equally_probable(name, values, head):
    model = MODELS[name](**{**SMALL, "values": values, "head": head})
    bits = model.bits_per_dim(images_of(model))
    torch.testing.assert_close(bits, torch.full((4,), math.log2(values)), rtol=1e-6, atol=0)
    assert model.exact


def test_heads_are_chosen_by_name_and_by_the_number_of_values():
    heads = [PixelCNN(**SMALL, **fields).distribution.head for fields in ({}, {"values": 2}, {"head": "logistics"})]
    assert [type(head) for head in heads] == [Categorical, Bernoulli, DiscretisedMixtureOfLogistics]
    assert [head.values for head in heads] == [256, 2, 256] and heads[2].components == 10


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", MODELS)
def test_log_probability_is_the_product_of_conditionals_pixel_by_pixel(name, variant):
    # Written out: each number's distribution from an image of which nothing else than what is before it is known.
    model = perturbed(make(name, variant)).double()
    images, label = images_of(model, 2), label_of(model, 2)
    context = None if label is None else torch.eye(3, dtype=torch.float64)[label]
    half = (model.config.values - 1) / 2
    known, total = torch.full_like(images, 0).double(), torch.zeros(2, dtype=torch.float64)
    for i, j, c in torch.cartesian_prod(*(torch.arange(n) for n in (*model.image_shape[1:], model.config.channels))):
        params = model.distribution.conditioner(known / half - 1, context)[..., c, i, j]
        total += model.distribution.head.log_prob(images[:, c, i, j], params)
        known[:, c, i, j] = images[:, c, i, j].double()
    torch.testing.assert_close(model.log_prob(images, label), total)
    torch.testing.assert_close(model(images, label), total)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", MODELS)
def test_samples_are_the_same_by_every_solver(name, variant):
    model = perturbed(make(name, variant)).double()
    drawn = {}
    for solver in ("sequential", Jacobi(0.0), "auto"):
        model.solver = solver
        drawn[str(solver)] = model.sample(3, 0.9, label_of(model, 3), torch.Generator().manual_seed(0))
    first, *others = drawn.values()
    assert (
        first.dtype == torch.uint8
        and first.shape == (3, *model.image_shape)
        and first.max().item() < model.config.values
    )
    assert first.unique().numel() > 1 and all(torch.equal(first, other) for other in others)
    model.solver = "sequential"
    assert model.solver == Sequential()


@pytest.mark.parametrize("name", MODELS)
def test_learns_images_by_heart_with_their_labels(name):
    torch.manual_seed(0)
    model = make(name, values=4, classes=2, hidden=16)
    images = images_of(model, 2)
    batch = {"images": images, "label": torch.tensor([0, 1])}
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(120):
        optimizer.zero_grad()
        losses = image_likelihood(model, batch)
        losses["loss"].backward()
        optimizer.step()
    assert losses["bits_per_dim"] < 0.05
    assert model.bits_per_dim(images, torch.tensor([1, 0])).min() > 0.5
    drawn = model.sample(2, temperature=0.5, label=torch.tensor([0, 1]), generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, images)
    assert torch.equal(model.sample(3, 0.0, label=1), images[1:].expand(3, -1, -1, -1))
    # Given its first row, an image is recognised in spite of what is below.
    begun = images.clone()
    begun[:, :, 1:] = 0
    assert torch.equal(model.complete(begun, 1, 0.0, torch.tensor([0, 1])), images)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", MODELS)
def test_completion_keeps_the_upper_rows_and_draws_the_rest(name, variant):
    model = perturbed(make(name, variant))
    images, label = images_of(model), label_of(model)
    for rows in (0, 2, 5):
        drawn = [model.complete(images, rows, label=label, generator=torch.Generator().manual_seed(k)) for k in (0, 1)]
        assert all(torch.equal(d[:, :, :rows], images[:, :, :rows]) and d.dtype == torch.uint8 for d in drawn)
        assert rows == 5 or not torch.equal(*drawn)
    whole = model.sample(4, label=label, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.complete(images, 0, label=label, generator=torch.Generator().manual_seed(0)), whole)
    assert torch.equal(model.complete(whole, 3, label=label, generator=torch.Generator().manual_seed(0)), whole)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", MODELS)
def test_can_be_saved_and_loaded(name, variant, tmp_path):
    model = perturbed(make(name, variant))
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded) is type(model) and loaded.config == model.config
    images, label = images_of(model), label_of(model)
    assert torch.equal(loaded.log_prob(images, label), model.log_prob(images, label))


@pytest.mark.parametrize("preset", PixelCNN.PRESETS)
@pytest.mark.parametrize("name", MODELS)
def test_presets(name, preset):
    assert MODELS[name].PRESETS.keys() == PixelCNN.PRESETS.keys()
    model = MODELS[name].from_preset(preset, hidden=6, layers=1, classes=2)
    images, label = images_of(model, 1), torch.tensor([1])
    assert model.bits_per_dim(images, label).isfinite().all()
    expected = {"mnist": (1, 28, 28), "mnist-binary": (1, 28, 28), "digits": (1, 8, 8)}
    assert model.image_shape == expected.get(preset, (3, 32, 32))


@pytest.mark.parametrize("name", MODELS)
def test_every_size_counts(name):
    model = make(name)
    larger = [make(name, **{size: getattr(model.config, size) + 2}) for size in ("layers", "kernel", "first_kernel")]
    counts = [sum(p.numel() for p in m.parameters()) for m in (model, *larger)]
    assert counts[0] < min(counts[1:]) and len(set(counts)) == 4


@pytest.mark.parametrize("name", MODELS)
def test_no_images_at_all(name):
    model = make(name, "bernoulli, labels")
    assert model.sample(0, label=torch.zeros(0, dtype=torch.int64)).shape == (0, 1, 5, 6)
    empty = torch.zeros(0, 1, 5, 6, dtype=torch.uint8)
    assert model.log_prob(empty, torch.zeros(0, dtype=torch.int64)).shape == (0,)
    assert model.complete(empty, 2, label=1).shape == (0, 1, 5, 6)


def test_weights_that_are_not_finite_are_noticed():
    model = make("PixelCNN")
    with torch.no_grad():
        model.distribution.conditioner.last.bias.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        model.sample(1)


ZEROS = torch.zeros(2, 1, 5, 6, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PixelCNN(layers=0), "PixelCNN expects layers of at least 1, got 0"),
        (lambda: PixelCNN(channels=3, hidden=5), "PixelCNN expects hidden of at least 6, got 5"),
        (lambda: GatedPixelCNN(kernel=4), "GatedPixelCNN expects kernel odd and at least 3, got 4"),
        (lambda: PixelCNN(first_kernel=1), "PixelCNN expects first_kernel odd and at least 3, got 1"),
        (lambda: PixelCNN(head="gaussian"), "PixelCNN expects head \"categorical\" or .*, got 'gaussian'"),
        (lambda: PixelCNN(head="bernoulli"), 'PixelCNN expects 2 values with the head "bernoulli", got 256'),
        (lambda: PixelCNN(components=0), "PixelCNN expects components of at least 1, got 0"),
        (lambda: PixelCNN.from_preset("imagenet"), "PixelCNN has no preset 'imagenet', expected one of mnist,"),
        (lambda: make("PixelCNN").log_prob(ZEROS.float()), "PixelCNN.log_prob expects uint8 images"),
        (lambda: make("PixelCNN").log_prob(ZEROS + 7), "PixelCNN.log_prob expects pixels 0 ... 6, got one of 7"),
        (lambda: make("PixelCNN").complete(ZEROS.float(), 2), "PixelCNN.complete expects uint8 images"),
        (lambda: make("PixelCNN").complete(ZEROS, 6), "PixelCNN.complete expects 0 ... 5 rows to keep, got 6"),
        (lambda: make("PixelCNN").complete(ZEROS, 0.5), "PixelCNN.complete expects 0 ... 5 rows to keep, got 0.5"),
        (lambda: make("PixelCNN").complete(ZEROS, 1, -1.0), "temperature of at least 0, got -1.0"),
        (lambda: make("PixelCNN").complete(ZEROS, 1, label=1), "PixelCNN.complete expects no label"),
        (
            lambda: make("GatedPixelCNN", "bernoulli, labels").complete(ZEROS, 1),
            "GatedPixelCNN.complete expects a label 0 ... 2 for each of 2 images, got None",
        ),
        (
            lambda: make("GatedPixelCNN", "bernoulli, labels").complete(ZEROS, 1, label=10**30),
            "GatedPixelCNN.complete expects a label 0 ... 2, got 10{30}$",
        ),
        (lambda: setattr(make("PixelCNN"), "solver", "newton"), "expects a solver out of .*, got 'newton'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)

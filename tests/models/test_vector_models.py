"""Flows of vectors: what they learn, promise and refuse."""

import json
import math

import pytest
import torch
from scipy.stats import norm

from waveflow.bijectors import LULinear
from waveflow.cli.main import main as waveflow
from waveflow.data.toys import sample_toy
from waveflow.distributions import Flow, maximum_likelihood
from waveflow.errors import InputError
from waveflow.models import IAF, MAF, NSF, CouplingFlow, PlanarFlow, load_model

MODELS = {
    "MAF": (MAF, {}),
    "IAF": (IAF, {}),
    "NSF, autoregressive": (NSF, {}),
    "NSF, couplings": (NSF, {"coupling": True}),
    "CouplingFlow": (CouplingFlow, {}),
    "PlanarFlow": (PlanarFlow, {}),
}
CONDITIONAL = [name for name in MODELS if name != "PlanarFlow"]


def make(name, **fields):
    model, extra = MODELS[name]
    small = {"layers": 8} if model is PlanarFlow else {"layers": 2, "hidden": (24, 24)}
    return model(**{"features": 2, **small, **extra, **fields})


def perturbed(model, size=0.1):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="module")
def moons():
    # Off-centre and out of scale, as tables are.
    return torch.tensor(sample_toy("moons", 1500) * [3.0, 0.2] + [10.0, -5.0], dtype=torch.float32)


@pytest.fixture(scope="module")
def trained(moons):
    """Name -> a model after 150 steps on moons."""

    def fit(name):
        if name not in models:
            torch.manual_seed(0)
            model = make(name)
            model.standardise(moons)
            optimizer = torch.optim.Adam(model.parameters(), 1e-2)
            for step in range(150):
                optimizer.zero_grad()
                maximum_likelihood(model, {"x": moons[step % 5 :: 5]})["loss"].backward()
                optimizer.step()
            models[name] = model.requires_grad_(False).eval()
        return models[name]

    models = {}
    return fit


@pytest.mark.parametrize("name", MODELS)
def test_learns_the_moons(name, trained):
    new = torch.tensor(sample_toy("moons", 3000, seed=1) * [3.0, 0.2] + [10.0, -5.0], dtype=torch.float32)
    deviations, mean = new.std(0), new.mean(0)
    gaussian = norm(mean, deviations).logpdf(new).sum(1).mean()
    gain = trained(name).log_prob(new).mean().item() - gaussian
    assert gain > (0.1 if name == "PlanarFlow" else 0.35)


@pytest.mark.parametrize("name", MODELS)
def test_density_integrates_to_one(name, trained):
    x, y = torch.linspace(-15, 35, 500), torch.linspace(-7, -3, 500)
    density = trained(name).log_prob(torch.cartesian_prod(x, y)).exp()
    assert (density.sum() * (x[1] - x[0]) * (y[1] - y[0])).item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_samples_follow_the_density(name, trained):
    # The fraction of samples within a box against the density's integral over it.
    samples = trained(name).sample((20_000,), generator=torch.Generator().manual_seed(0))
    inside = ((samples > torch.tensor([10.0, -5.05])) & (samples < torch.tensor([13.0, -4.8]))).all(1).float().mean()
    x, y = torch.linspace(10, 13, 300), torch.linspace(-5.05, -4.8, 300)
    density = trained(name).log_prob(torch.cartesian_prod(x, y)).exp()
    assert inside.item() == pytest.approx(density.mean().item() * 3 * 0.25, abs=0.015)


@pytest.mark.parametrize("name", MODELS)
def test_float32_inverse_is_accurate(name, trained, moons):
    assert (trained(name).inverse_error(moons) / moons.std(0).max()).max() < 1e-5
    x = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
    x = 5 * x / x.abs().amax(1, keepdim=True)  # five deviations out, in one feature at least
    model = perturbed(make(name, features=8, layers=5), 0.05)
    assert model.inverse_error(x).max() < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_a_new_model_is_a_gaussian_with_the_moments_of_the_data(name, moons):
    model = make(name)
    model.standardise(moons)
    wide = moons.double()
    expected = norm(wide.mean(0), wide.std(0, correction=0)).logpdf(wide[:50]).sum(1)
    torch.testing.assert_close(model.log_prob(moons[:50]).double(), torch.tensor(expected), atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_is_a_flow_that_can_be_saved(name, trained, tmp_path, moons):
    model = trained(name)
    assert isinstance(model, Flow)
    model.save_pretrained(tmp_path / "a")
    loaded = load_model(tmp_path / "a")
    assert type(loaded) is type(model) and loaded.config == model.config
    assert torch.equal(loaded.log_prob(moons), model.log_prob(moons))
    loaded.save_pretrained(tmp_path / "b")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_info_describes_a_model_of_vectors(tmp_path, capsys):
    make("MAF").save_pretrained(tmp_path)
    assert waveflow(["info", str(tmp_path)]) == 0
    assert "features 2" in capsys.readouterr().out


@pytest.mark.parametrize("name", CONDITIONAL)
def test_context_is_used_and_pairs_with_its_samples(name):
    model = perturbed(make(name, features=3, context=2), 0.3).double()
    context = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-3.0, 1.0]], dtype=torch.float64)
    x, log_prob = model.sample_with_log_prob((7,), context)
    assert x.shape == (7, 5, 3) and model.sample((7, 2), context).shape == (7, 2, 5, 3)
    torch.testing.assert_close(model.log_prob(x, context), log_prob, atol=1e-8, rtol=0)
    torch.testing.assert_close(model.log_prob(x[:, 3], context[3:4].expand(7, 2)), log_prob[:, 3], atol=1e-8, rtol=0)
    values = model.log_prob(torch.zeros_like(x[0]), context)
    assert (values[:, None] - values)[~torch.eye(5, dtype=torch.bool)].abs().min() > 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_leading_batch_shapes(name):
    model = perturbed(make(name, features=3))
    x = model.sample((4, 5))
    assert x.shape == (4, 5, 3)
    torch.testing.assert_close(model.log_prob(x)[2], model.log_prob(x[2]))
    assert model.sample((0,)).shape == (0, 3) and model.log_prob(torch.zeros(0, 3)).shape == (0,)
    assert model.as_distribution().log_prob(x[0, 0]).shape == ()


@pytest.mark.parametrize("name", MODELS)
def test_every_feature_reaches_every_latent(name):
    model = perturbed(make(name, features=5, layers=3), 0.5).double()
    for module in model.modules():
        if isinstance(module, LULinear):  # not by its help, but by turns
            module.load_state_dict(LULinear(5, permute=False).state_dict())
    z = torch.randn(5, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda z: model.bijector.inverse(z[None])[0][0], z)
    assert (jacobian != 0).all()


def test_one_feature_is_enough_for_autoregressive_models():
    for name in ("MAF", "IAF", "NSF, autoregressive", "PlanarFlow"):
        model = perturbed(make(name, features=1))
        x = torch.linspace(-30, 30, 6001)
        assert torch.trapezoid(model.log_prob(x[:, None]).exp(), x).item() == pytest.approx(1, abs=1e-3)


def test_smooth_activations_give_smooth_densities():
    model = perturbed(make("MAF", activation="silu"), 0.5).double()
    line = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    values = model.log_prob(torch.stack([line, line], 1))
    curvature = values.diff(n=2) / (line[1] - line[0]) ** 2
    assert curvature.diff().abs().max() < 0.1 * max(1.0, curvature.abs().max())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MAF(), "MAF expects features, which has no default"),
        (lambda: MAF(features=2, depth=3), "MAF has no field depth; its fields are activation, context, features,"),
        (lambda: MAF(features=0), "MAF expects features of at least 1, got 0"),
        (lambda: IAF(features=2, layers=0), "IAF expects layers of at least 1, got 0"),
        (lambda: NSF(features=2, hidden=()), r"NSF expects hidden of at least 1, got \(\)"),
        (lambda: NSF(features=2, bins=1), "NSF expects bins >= 2 and a positive bound, got 1 and 5.0"),
        (lambda: NSF(features=1, coupling=True), "NSF expects at least 2 features for couplings, got 1"),
        (lambda: CouplingFlow(features=1), "CouplingFlow expects at least 2 features, got 1"),
        (lambda: MAF(features=2, context=-1), "MAF expects a context of at least 0 numbers, got -1"),
        (lambda: MAF(features=2, activation="step"), "MAF expects an activation out of relu, silu, tanh, got 'step'"),
        (lambda: PlanarFlow(features=2, layers=0), "PlanarFlow expects layers of at least 1, got 0"),
        (lambda: PlanarFlow(features=2, context=3), "PlanarFlow has no field context; its fields are features, layers"),
        (lambda: make("MAF").log_prob(torch.zeros(4, 3)), r"Flow expects events of shape \(2,\), got \(3,\)"),
        (lambda: make("MAF").standardise(torch.zeros(4, 3)), r"ZScore expects rows of 2 features, got shape \(4, 3\)"),
        (lambda: make("MAF").standardise(torch.eye(4)[:, :2] * math.nan), "ZScore expects finite values"),
        (lambda: make("MAF").standardise(torch.full((9, 2), 0.1)), r"got constant ones: \[0, 1\]"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", MODELS)
def test_a_superfluous_context_is_refused(name):
    model, context = make(name), torch.zeros(4, 2)
    for call in (lambda: model.log_prob(torch.zeros(4, 2), context), lambda: model.sample((3,), context)):
        with pytest.raises(InputError, match=rf"{type(model).__name__} expects no context, got \(4, 2\)"):
            call()


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_missing_context_and_one_of_another_size_are_refused(name):
    model = make(name, context=2)
    for call in (lambda: model.log_prob(torch.zeros(4, 2)), lambda: model.sample((3,))):
        with pytest.raises(InputError, match=r"expects a context \(B, 2\), got None"):
            call()
    with pytest.raises(InputError, match=r"expects a context \(B, 2\), got \(4, 3\)"):
        model.log_prob(torch.zeros(4, 2), torch.zeros(4, 3))


def test_a_configuration_that_is_none_is_refused(tmp_path):
    make("MAF").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["config"]["hidden"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json: MAF expects hidden as a list of whole numbers, got 3"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_compiles_as_one_graph_and_maps_by_vmap(name):
    model = perturbed(make(name, features=3, layers=2))
    x = torch.randn(3, 4, 3)
    expected = model.log_prob(x)
    torch._dynamo.reset()
    compiled = torch.compile(model.bijector, fullgraph=True, backend="eager")(x[0])[1]
    torch.testing.assert_close(compiled + model.base.log_prob(model.bijector(x[0])[0]), expected[0])
    torch.testing.assert_close(torch.func.vmap(model.log_prob)(x), expected)


@pytest.mark.parametrize(("coupling", "bound"), [(False, 5e-6), (True, 1e-5)])
def test_nsf_is_inverted_in_float32_far_out(coupling, bound):
    """Five standard deviations out; what is left follows from the rounding between the layers."""
    torch.manual_seed(0)
    model = perturbed(NSF(features=8, hidden=(100, 100), coupling=coupling), 0.05)
    x = torch.randn(500, 8)
    x = 5 * x / x.abs().amax(1, keepdim=True)
    with torch.no_grad():
        assert (model.bijector.inverse(model.bijector(x)[0])[0] - x).abs().max() < bound


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bins": 1}, "bins >= 2 and a positive bound, got 1 and 5.0"),
        ({"bound": 0.0}, "bins >= 2 and a positive bound, got 8 and 0.0"),
        ({"raw_scale": 0.0}, "positive raw_scale, got 0.0"),
        ({"raw_scale": float("nan")}, "positive raw_scale, got nan"),
    ],
)
def test_splines_that_cannot_be_are_refused(fields, message):
    with pytest.raises(InputError, match=f"NSF expects (a )?{message}"):
        NSF(features=3, **fields)

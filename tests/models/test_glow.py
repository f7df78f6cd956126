"""Glow: what it is made of, learns, promises and refuses."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images
from torch.autograd.graph import saved_tensors_hooks

from waveflow.bijectors import ActNorm, Coupling, InvertibleConv1x1, Logit, Shift
from waveflow.errors import InputError
from waveflow.models import Glow, load_model
from waveflow.networks import CouplingNet

CIFAR = Path(__file__).parents[3] / "shared/data/cifar10/train_lossless.npz"
SMALL = {"channels": 2, "height": 8, "width": 8, "levels": 2, "steps": 2, "hidden": 16}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(batch, channels=2, side=8, values=256):
    """Neighbouring pixels are alike, so that there is something to standardise."""
    noise = torch.randn(batch, channels, side // 2, side // 2, generator=seeded(1)).repeat_interleave(2, 2)
    noise = noise.repeat_interleave(2, 3) + 0.1 * torch.randn(batch, channels, side, side, generator=seeded(2))
    return ((0.5 + 0.15 * noise) * values).clamp(0, values - 1).to(torch.uint8)


def photographs(count, side=32):
    """Random crops of the two photographs inside scikit-learn."""
    pictures = [torch.tensor(picture).permute(2, 0, 1) for picture in load_sample_images().images]
    rows = torch.randint(0, pictures[0].shape[1] - side, (count,), generator=seeded(3))
    columns = torch.randint(0, pictures[0].shape[2] - side, (count,), generator=seeded(4))
    return torch.stack(
        [pictures[i % 2][:, r : r + side, c : c + side] for i, (r, c) in enumerate(zip(rows, columns, strict=True))]
    ).contiguous()


def perturbed(model, std=0.05):
    generator = seeded(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(std * torch.randn(parameter.shape, generator=generator))
    return model


def trained(model, data, labels=None, steps=200, rate=6e-3, batch=64):
    model.initialize(data[:256], None if labels is None else labels[:256])
    optimizer = torch.optim.Adam(model.parameters(), rate)
    generator = seeded(6)
    for _ in range(steps):
        chosen = torch.randint(0, len(data), (batch,), generator=generator)
        optimizer.zero_grad()
        label = None if labels is None else labels[chosen]
        model.bits_per_dim(data[chosen], label, generator).mean().backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return torch.tensor(data.images).to(torch.uint8)[:, None], torch.tensor(data.target)


@pytest.fixture(scope="module")
def conditional(digits):
    torch.manual_seed(0)
    return trained(Glow.from_preset("digits", steps=2, hidden=32, classes=10), digits[0][:1500], digits[1][:1500])


def test_standardising_couplings_divide_by_what_affine_ones_multiply_by():
    """With equal constants: the sum of the log-dets is theirs without the priors', which is zero here."""
    found = {}
    for coupling in ("affine", "standardise"):
        model = Glow(**SMALL, coupling=coupling).double().eval()
        found[coupling] = model.flow.bijector(torch.rand(3, 2, 8, 8).double())[1]
    assert (found["affine"] < -1).all()
    torch.testing.assert_close(found["standardise"], -found["affine"])


@pytest.mark.parametrize("preset", Glow.PRESETS)
def test_presets_have_the_sizes_of_the_paper(preset):
    c = Glow.make_config(**Glow.PRESETS[preset])
    if preset in ("cifar10", "mnist"):
        assert (c.steps, c.hidden) == (32, 512)
    assert c.height % 2**c.levels == 0


def test_alpha_puts_the_logit_in_front():
    y = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain, through = (Glow(**SMALL, alpha=alpha).eval() for alpha in (None, 0.05))
    through.flow.bijector[1].load_state_dict(plain.flow.bijector[1].state_dict())
    seen, log_det = Logit(0.05)(y)
    expected = plain.flow.log_prob(seen + 0.5) + log_det
    torch.testing.assert_close(through.flow.log_prob(y), expected)


def test_parameters_are_those_of_the_figure():
    # Counted by hand: per step actnorm, W, two normed convolutions, the last; split prior; top prior.
    model = Glow(channels=3, height=8, width=8, levels=2, steps=3, hidden=20)

    def step(c):
        first, second = 9 * (c // 2) * 20 + 2 * 20, 20 * 20 + 2 * 20
        return 2 * c + c * c + first + second + 9 * 20 * c + 2 * c

    expected = 3 * step(12) + (9 * 6 * 12 + 2 * 12) + 3 * step(24) + 2 * 24 * 2 * 2
    assert sum(p.numel() for p in model.parameters()) == expected
    parts = [type(part) for part in model.flow.bijector[1].levels[0]]
    assert parts[1:] == [ActNorm, InvertibleConv1x1, Coupling] * 3 + [Coupling]


def test_a_new_model_is_a_gaussian_of_rotated_pixels():
    # All networks and priors are zero and the coupling's scale is a constant: what is left is a linear map.
    model, x = Glow(**SMALL).double().eval(), images(3)
    y = (x + torch.rand(x.shape, generator=seeded(7), dtype=torch.float64)) / 256
    scale = math.log(0.1 + 0.9 / (1 + math.exp(-2)))
    log_det = SMALL["steps"] * scale * (4 * 16 + 8 * 4)  # half of 8 channels at 4x4, half of 16 at 2x2
    z, got = model.flow.bijector(y)
    torch.testing.assert_close(got, torch.full((3,), log_det, dtype=torch.float64), atol=1e-5, rtol=0)
    # Rotations keep lengths and a scale of at most 1 shortens them.
    assert (z.square().sum((1, 2, 3)) < (y - 0.5).square().sum((1, 2, 3))).all()


def test_the_density_is_that_of_the_change_of_variables():
    model, x = perturbed(Glow(**{**SMALL, "height": 4, "width": 4})).double().eval(), torch.rand(2, 2, 4, 4).double()
    jacobian = torch.autograd.functional.jacobian(lambda y: model.flow.bijector(y)[0].sum(0), x, vectorize=True)
    z, _ = model.flow.bijector(x)
    for i in range(2):
        matrix = jacobian[:, :, :, i].reshape(32, 32)
        normal = -0.5 * z[i].square().sum() - 16 * math.log(2 * math.pi)
        torch.testing.assert_close(model.flow.log_prob(x)[i], normal + torch.linalg.slogdet(matrix)[1])


def test_the_prior_of_what_leaves_sees_only_what_stays():
    model = perturbed(Glow(**SMALL)).eval()
    x = torch.rand(1, 8, 4, 4).requires_grad_()
    prior = model.flow.bijector[1].levels[0][-1]
    z, _ = prior(x)
    assert torch.equal(z[:, 4:], x[:, 4:])
    (gradient,) = torch.autograd.grad(z[0, 0, 1, 1], x)
    assert set(gradient[0, :4].nonzero().tolist()[0]) == {0, 1} and gradient[0, 4:].any()


CHOICES = [{}, {"coupling": "additive"}, {"coupling": "standardise"}, {"convolution": "plu"}, {"norm": False}]


@pytest.mark.parametrize("fields", CHOICES)
def test_inverts_in_both_directions(fields):
    model, x = Glow(**{**SMALL, **fields}), images(16)
    model.initialize(x)
    perturbed(model, 0.02).eval()
    assert torch.equal(model.decode(model.encode(x)), x)
    assert model.flow.inverse_error((x + 0.5) / 256).max() < 1e-4
    shifts = [isinstance(part, Shift) for part in model.modules()]
    assert any(shifts) == (fields.get("coupling") == "additive")


QUICK = ("digits", "mnist-small")


@pytest.mark.parametrize("preset", [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in Glow.PRESETS])
def test_decode_gives_back_every_pixel(preset):
    torch.manual_seed(0)
    model = Glow.from_preset(preset)
    c = model.config
    x = images(4, c.channels, c.height, c.values)
    model.initialize(x)
    perturbed(model, 0.001).eval()
    assert torch.equal(model.decode(model.encode(x)), x)


def test_initialisation_standardises_every_actnorm_and_happens_once():
    seen = {}
    model, x = Glow(**SMALL), images(64)
    model.initialize(x)
    assert not any(not m.initialized for m in model.modules() if hasattr(m, "initialized"))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.initialize(255 - x)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    norms = [m for m in model.modules() if isinstance(m, ActNorm)]
    for norm in norms:
        norm.register_forward_hook(lambda m, _, out: seen.update({m: out[0]}))
    model.bits_per_dim(x)
    for norm in norms:
        assert seen[norm].mean((0, 2, 3)).abs().max() < 0.1  # up to the noise of another dequantisation
        assert (seen[norm].std((0, 2, 3)) - 1).abs().max() < 0.1


def test_sampling_a_new_model_initialises_nothing():
    model = Glow(**SMALL).train()
    model.sample(4)
    assert not any(m.initialized for m in model.modules() if hasattr(m, "initialized"))


@pytest.mark.parametrize("classes", [0, 3])
def test_inverted_memory_gives_the_same_gradients(classes):
    x, label = images(8), torch.arange(8) % 3 if classes else None
    stored, inverted = (Glow(**SMALL, classes=classes, memory=memory).double() for memory in ("store", "invert"))
    stored.initialize(x, label)
    perturbed(stored)
    inverted.load_state_dict(stored.state_dict())
    for model in (stored, inverted):
        model.log_prob(x, label, seeded(8)).mean().backward()
    for (name, a), b in zip(stored.named_parameters(), inverted.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-7, rtol=1e-6, msg=name)


def test_the_first_batch_initialises_under_inverted_memory_too():
    torch.manual_seed(0)
    stored, x = Glow(**SMALL), images(8)
    inverted = Glow(**SMALL, memory="invert")
    inverted.load_state_dict(stored.state_dict())
    for model in (stored, inverted):
        model.train().log_prob(x, generator=seeded(9)).mean().backward()
    for (name, a), b in zip(stored.state_dict().items(), inverted.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def kept_for_backward(model, x):
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.log_prob(x).mean()
    loss.backward()
    return sum(size for size, _ in kept.values())


def test_inverted_memory_is_flat_in_the_number_of_steps():
    x, kept = images(4), {}
    for memory in ("store", "invert"):
        for steps in (1, 4):
            model = Glow(**{**SMALL, "steps": steps}, memory=memory)
            model.initialize(x)
            kept[memory, steps] = kept_for_backward(model, x)
    assert kept["store", 4] > 3 * kept["store", 1]
    assert kept["invert", 4] == kept["invert", 1] < 0.2 * kept["store", 1]


@pytest.mark.slow
def test_ten_megabytes_are_enough():
    model, x = Glow.from_preset("cifar10", steps=8, hidden=256, memory="invert"), images(8, 3, 32)
    model.initialize(x)
    assert kept_for_backward(model, x) < 10e6


def test_learns_digits_and_their_classes(digits, conditional):
    x, label = digits[0][1500:], digits[1][1500:]
    with torch.no_grad():
        own = conditional.bits_per_dim(x, label, seeded(1)).mean()
        other = conditional.bits_per_dim(x, (label + 1) % 10, seeded(1)).mean()
    train, test = (((d + torch.rand(d.shape, generator=seeded(2))) / 17).flatten(1) for d in (digits[0][:1500], x))
    gaussian = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov())
    assert own < math.log2(17) - gaussian.log_prob(test).mean() / (64 * math.log(2)) - 0.08
    assert other > own + 0.2


def test_samples_take_temperature_and_label(conditional):
    label = torch.full((64,), 0)
    cold, warm = (conditional.sample(64, t, label, seeded(2)) for t in (0.0, 1.0))
    assert warm.dtype == torch.uint8 and warm.shape == (64, 1, 8, 8) and warm.max() <= 16
    assert (cold == cold[:1]).all() and warm.float().std(0).mean() > 1
    assert torch.equal(warm, conditional.sample(64, 1.0, label, seeded(2)))
    assert not torch.equal(cold, conditional.sample(64, 0.0, torch.full((64,), 1), seeded(2)))


def test_can_be_saved(conditional, digits, tmp_path):
    conditional.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded) is Glow and loaded.config == conditional.config
    x, label = digits[0][:5], digits[1][:5]
    assert torch.equal(loaded.log_prob(x, label, seeded()), conditional.log_prob(x, label, seeded()))


def test_the_state_is_that_of_torch(conditional):
    buffer = io.BytesIO()
    torch.save(conditional.state_dict(), buffer)
    twin = Glow(**{f: getattr(conditional.config, f) for f in conditional.config.__dataclass_fields__})
    twin.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert all(m.initialized for m in twin.modules() if hasattr(m, "initialized"))


def test_vmap_and_compile():
    model, x = Glow(**{**SMALL, "steps": 1}, classes=3), images(4)
    label = torch.arange(4) % 3
    model.initialize(x, label)
    perturbed(model)
    bijector, y, context = model.flow.bijector, (x + 0.5) / 256, torch.eye(3)[label]
    for call in (bijector, bijector.inverse):
        expected = call(y if call is bijector else bijector(y, context)[0], context)
        point = y if call is bijector else bijector(y, context)[0]
        compiled = torch.compile(call, fullgraph=True, backend="eager")(point, context)
        mapped = torch.func.vmap(lambda item, call=call: call(item, context))(torch.stack([point, 0.5 * point]))
        for a, b, c in zip(expected, compiled, mapped, strict=True):
            torch.testing.assert_close(a, b)
            torch.testing.assert_close(a, c[0])


def test_bfloat16_networks_leave_the_map_invertible():
    model, x = Glow(**SMALL), images(4)
    model.initialize(x)
    perturbed(model, 0.02)
    y = (x + 0.5) / 256
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, log_det = model.flow.bijector(y)
        rebuilt, _ = model.flow.bijector.inverse(z)
    assert log_det.dtype == z.dtype == torch.float32
    assert (rebuilt - y).abs().max() < 1e-3


@pytest.mark.slow
def test_two_hundred_steps_without_a_warm_up_stay_finite():
    if CIFAR.exists():
        with np.load(CIFAR) as archive:
            data = torch.tensor(archive["images"][:2000]).permute(0, 3, 1, 2).contiguous()
    else:
        data = photographs(2000)
    torch.manual_seed(0)
    model = Glow.from_preset("cifar10", steps=8, hidden=64)
    model.initialize(data[:64])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for step in range(200):
        optimizer.zero_grad()
        loss = model.bits_per_dim(data[torch.randint(0, len(data), (8,))]).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if step % 20 == 3:
            model.sample(2)  # raises if a pixel is not finite
    assert torch.stack(losses).isfinite().all() and torch.stack(losses[-20:]).mean() < losses[0] - 1
    x = data[:16]
    assert torch.equal(model.decode(model.encode(x)), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Glow(levels=3), "Glow expects height and width divisible by 8 for 3 levels, got 28x28"),
        (lambda: Glow(levels=0), "levels of at least 1"),
        (lambda: Glow(steps=0), "steps of at least 1, got 0"),
        (lambda: Glow(coupling="spline"), "coupling"),
        (lambda: Glow(scale="softplus"), "scale"),
        (lambda: Glow(alpha=0.5), "alpha within 0 and 0.5, got 0.5"),
        (lambda: Glow(convolution="lu"), "convolution"),
        (lambda: Glow(memory="none"), "memory"),
        (lambda: Glow(depth=3), "Glow has no field depth"),
        (lambda: Glow(**SMALL).log_prob(images(2).float()), "uint8"),
        (lambda: Glow(**SMALL).log_prob(images(2, channels=3)), "2, 8, 8"),
        (lambda: Glow(**SMALL, classes=3).sample(2), "label"),
        (lambda: Glow(**SMALL, classes=3).log_prob(images(2), torch.tensor([0, 3])), "0 ... 2"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_networks_take_the_label_only_where_there_is_one():
    nets = [m for m in Glow(**SMALL, classes=3).modules() if isinstance(m, CouplingNet)]
    assert nets and all(net.by_context.shape == (16, 3) for net in nets)
    assert all(m.by_context is None for m in Glow(**SMALL).modules() if isinstance(m, CouplingNet))

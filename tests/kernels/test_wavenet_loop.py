"""The compiled sampling loop of WaveNet against the stack itself, in one pass over what the loop made."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from waveflow.bijectors import Affine, MixtureOfLogistics, Standardise
from waveflow.distributions import Categorical, DiscretisedMixtureOfLogistics
from waveflow.errors import InputError
from waveflow.kernels.wavenet_loop import tanh
from waveflow.kernels.wavenet_tiles import add_product, pack, tile_width
from waveflow.models.wavenet_kernel import WaveNetLoop
from waveflow.networks import WaveNetStack

HEADS = {
    "Gaussian": Standardise("exp"),
    "Gaussian, bounded scale": Standardise("tanh_exp"),
    "Gaussian, floored scale": Standardise("floored"),
    "affine": Affine("tanh_exp"),
    "logistics": MixtureOfLogistics(4),
    "65,536 values": DiscretisedMixtureOfLogistics(3, 65536),
    "categorical": Categorical(64),
}
STACKS = {
    "kernel 2": {"kernel_size": 2, "first_kernel": 32, "context_channels": 5},
    "kernel 3, as the mixture's": {"kernel_size": 3, "post": True, "scaled": True, "context_channels": 5},
    "kernel 4, no context": {"kernel_size": 4, "first_kernel": 3},
    "kernel 1": {"kernel_size": 1, "context_channels": 2},
    "separable": {"kernel_size": 3, "separable": True},
}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_stack(outputs, channels=24, layers=7, cycle=6, **options):
    """Of float64 and far from its start: contexts and the past matter, no sample runs away."""
    stack = WaveNetStack(1, outputs, channels, layers, cycle=cycle, causal=True, **options).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in stack.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return stack


def make_noise(head, batch, samples):
    z = random(batch, samples, seed=2)
    return torch.special.ndtr(z) if hasattr(head, "values") else 0.5 * z


def run(stack, head, noise, context, temperature=1.0):
    loop = WaveNetLoop(stack.packed(), head, len(noise), temperature)
    return loop(noise, context)


@torch.no_grad()
def seen_again(stack, head, noise, context, x, temperature=1.0):
    """What the head makes of the noise where the network has seen x: x itself, and nothing else, if x is right."""
    discrete = hasattr(head, "values")
    params = stack((2 * x / (head.values - 1) - 1 if discrete else x)[:, None], context)
    return head.inverse(noise[:, None], params, *((temperature,) if discrete else ()))[0][:, 0]


@pytest.mark.parametrize("batch", [1, 3, 9])
@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("name", HEADS)
def test_samples_are_those_of_the_stack_in_float64(name, kind, batch):
    head, stack = HEADS[name], make_stack(HEADS[name].params, **STACKS[kind])
    context = random(batch, stack.context_channels, 150, seed=1) if stack.context_channels else None
    noise = make_noise(head, batch, 150)
    x = run(stack, head, noise, context)
    assert x.dtype == torch.float64
    assert x.std() > 0.05
    torch.testing.assert_close(x, seen_again(stack, head, noise, context, x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", HEADS)
def test_samples_are_those_of_the_stack_in_float32(name):
    head = HEADS[name]
    stack = make_stack(head.params, **STACKS["kernel 3, as the mixture's"])
    context, noise = random(2, 5, 400, seed=1), make_noise(head, 2, 400)
    x = run(copy.deepcopy(stack).float(), head, noise.float(), context.float())
    assert x.dtype == torch.float32
    again = seen_again(stack, head, noise.float().double(), context.float().double(), x.double())
    allowed = 1 if hasattr(head, "values") else 1e-5  # a number next to an edge may fall on its other side
    assert (x - again).abs().max() <= allowed


def test_a_batch_is_its_items():
    head, stack = HEADS["Gaussian"], make_stack(2, **STACKS["kernel 2"])
    context, noise = random(5, 5, 70, seed=1), make_noise(HEADS["Gaussian"], 5, 70)
    together = run(stack, head, noise, context)
    for i in range(5):
        torch.testing.assert_close(run(stack, head, noise[i : i + 1], context[i : i + 1])[0], together[i])


def test_calls_go_on_from_each_other():
    head, stack = HEADS["Gaussian"], make_stack(2, **STACKS["kernel 2"])
    context, noise = random(3, 5, 100, seed=1), make_noise(head, 3, 100)
    loop = WaveNetLoop(stack.packed(), head, 3)
    pieces = [loop(noise[:, a:b], context[..., a:b]) for a, b in ((0, 1), (1, 30), (30, 30), (30, 71), (71, 100))]
    torch.testing.assert_close(torch.cat(pieces, 1), run(stack, head, noise, context))


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("name", ["65,536 values", "categorical"])
def test_temperature_is_that_of_the_head(name, temperature):
    head = HEADS[name]
    stack = make_stack(head.params, kernel_size=2)
    noise = make_noise(head, 2, 50)
    x = run(stack, head, noise, None, temperature)
    torch.testing.assert_close(x, seen_again(stack, head, noise, None, x, temperature), rtol=0, atol=0)


def test_what_is_not_finite_stays_visible():
    for head in HEADS.values():
        stack = make_stack(head.params, kernel_size=2, context_channels=1)
        context, noise = torch.zeros(1, 1, 20, dtype=torch.float64), make_noise(head, 1, 20)
        context[..., 10] = torch.nan
        x = run(stack, head, noise, context)[0]
        assert x[:10].isfinite().all()
        assert x[10:].isnan().all()


def test_nothing_to_make():
    head, stack = HEADS["Gaussian"], make_stack(2, kernel_size=2)
    assert run(stack, head, torch.zeros(2, 0), None).shape == (2, 0)
    assert run(stack, head, torch.zeros(0, 4), None).shape == (0, 4)


def test_what_does_not_fit_is_refused():
    head, stack = HEADS["Gaussian"], make_stack(2, kernel_size=2, context_channels=5)
    loop = WaveNetLoop(stack.packed(), head, 2)
    with pytest.raises(InputError, match=r"expects noise \(2, n\), got \(3, 4\)"):
        loop(torch.zeros(3, 4), torch.zeros(2, 5, 4))
    with pytest.raises(InputError, match=r"expects a context \(2, 5, 4\), got \(2, 5, 3\)"):
        loop(torch.zeros(2, 4), torch.zeros(2, 5, 3))
    with pytest.raises(InputError, match="got None"):
        loop(torch.zeros(2, 4))
    with pytest.raises(InputError, match="with 64 outputs, got 2"):
        WaveNetLoop(stack.packed(), HEADS["categorical"], 2)
    with pytest.raises(InputError, match=r"float32 or float64 on a CPU, got torch\.bfloat16"):
        WaveNetLoop(stack.packed(torch.bfloat16), head, 2)
    with pytest.raises(InputError, match="no compiled form"):
        WaveNetLoop(stack.packed(), nn.Identity(), 2)


def test_tanh_is_within_a_few_units_in_the_last_place():
    x = np.concatenate([np.linspace(-12, 12, 100_001), np.geomspace(1e-30, 1, 10_001), [0.0, -0.0, np.inf, -np.inf]])
    x = x.astype(np.float32)
    got = np.array([tanh(v) for v in x])  # Python's floats, made of single ones
    exact = np.tanh(x.astype(np.float64))
    assert (got == got.astype(np.float32)).all()
    assert (np.abs(got - exact) <= 8 * np.spacing(np.abs(exact).astype(np.float32))).all()
    assert np.isnan(tanh(np.float32(np.nan)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("outputs", [16, 48, 64, 128, 256, 272])
def test_products_by_tiles(outputs, dtype):
    rng = np.random.default_rng(0)
    for rows in (1, 2, 3, 5, 8, 15):
        x, w = rng.standard_normal((rows, 7)).astype(dtype), rng.standard_normal((7, outputs)).astype(dtype)
        for meant in (1, 2, 3, 4, 8, 32):  # as many rows as it was packed for, or others
            y = np.ones((rows, outputs + 3), dtype)
            packed = pack(w, tile_width(outputs, meant))
            add_product(x.ctypes.data, 7, rows, packed, y.ctypes.data, outputs + 3, dtype(0))
            np.testing.assert_allclose(y[:, :outputs], 1 + x @ w, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)
            assert (y[:, outputs:] == 1).all()

"""NICE against a plain transcription of the paper, and what it learns."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.stats import logistic, norm

from waveflow.bijectors import Coupling
from waveflow.distributions import image_likelihood
from waveflow.models import NICE


def perturbed(model, size=0.1):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


def images(*shape, values=256):
    return torch.randint(values, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def saved_bytes(model, x):
    """What autograd keeps for the backward pass of log_prob, besides the parameters themselves."""
    own, sizes = {p.data_ptr() for p in model.parameters()}, []

    def keep(tensor):
        sizes.append(tensor.nbytes if tensor.data_ptr() not in own else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.log_prob(x).sum()
    return sum(sizes)


@pytest.mark.parametrize(("prior", "density"), [("logistic", logistic), ("gaussian", norm)])
def test_density_is_that_of_the_paper(prior, density):
    model = perturbed(NICE(height=2, width=3, layers=3, hidden=(7, 5), prior=prior).eval().double())
    y = torch.rand(4, 1, 2, 3, dtype=torch.float64)
    scaling, *couplings = model.flow.bijector[1]

    log_scale = scaling.log_scale.detach().numpy()
    h = (y.numpy().reshape(4, 6) + scaling.shift.detach().numpy()) * np.exp(log_scale)
    for i, coupling in enumerate(couplings):
        kept, changed = (h[:, 1::2], h[:, 0::2]) if i % 2 else (h[:, 0::2], h[:, 1::2])
        a = kept
        for layer in coupling.conditioner.layers:
            a = np.maximum(a @ layer.weight.detach().numpy().T + layer.bias.detach().numpy(), 0)
        last = coupling.conditioner.last
        changed += a @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    expected = density.logpdf(h).sum(1) + log_scale.sum()
    np.testing.assert_allclose(model.flow.log_prob(y).detach().numpy(), expected, rtol=1e-10)


def test_scaling_first_is_scaling_last():
    """The same map, with the paper's order: the network's input divided by its scales, its output multiplied."""
    model = perturbed(NICE(height=2, width=3, layers=2, hidden=(7, 5)).eval().double())
    scaling, *couplings = copy.deepcopy(model.flow.bijector[1])
    scale, shift = scaling.log_scale.exp(), scaling.shift
    x = torch.rand(4, 6, dtype=torch.float64)
    expected, _ = model.flow.bijector[1](x)
    for i, coupling in enumerate(couplings):
        halves = (slice(1, None, 2), slice(0, None, 2))
        kept, changed = halves if i % 2 else halves[::-1]
        network = coupling.conditioner
        x = x.clone()
        x[:, changed] += network((x[:, kept] + shift[kept]) * scale[kept]) / scale[changed]
    torch.testing.assert_close((x + shift) * scale, expected)


def test_networks_stay_alive():
    """Images that are black but for a few pixels, as digits are: their scales are large."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    shown = 255 * (torch.rand(64, 1, 28, 28, generator=generator) < 0.05).to(torch.uint8)
    shown[..., :4, :] = shown[..., -4:, :] = 0
    model = NICE(hidden=(200,) * 5).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(200):
        optimizer.zero_grad()
        (-model.log_prob(shown).mean()).backward()
        optimizer.step()
    h = shown.flatten(1) / 256
    for layer in model.flow.bijector[1]:
        if isinstance(layer, Coupling):
            a, _ = layer.partition.split(h)
            for linear in layer.conditioner.layers:
                a = linear(a).relu()
            assert (a > 0).any(0).float().mean() > 0.2
        h, _ = layer(h)


def test_presets_are_the_papers():
    mnist = NICE.make_config(**NICE.PRESETS["mnist"])
    assert (mnist.layers, mnist.hidden, mnist.image_shape, mnist.prior) == (4, (1000,) * 5, (1, 28, 28), "logistic")
    with torch.device("meta"):
        sizes = {name: sum(p.numel() for p in NICE.from_preset(name).parameters()) for name in NICE.PRESETS}
    network = 392 * 1000 + 4 * 1000 * 1000 + 1000 * 392 + 5 * 1000 + 392
    assert sizes["mnist"] == 4 * network + 2 * 784
    assert set(sizes) == {"mnist", "cifar10", "digits"}


@pytest.mark.parametrize("prior", ["logistic", "gaussian"])
def test_latents_come_back_as_the_same_images(prior):
    model = perturbed(NICE(channels=3, height=8, width=8, hidden=(64, 64), prior=prior), 0.05)
    x = images(50, 3, 8, 8)
    assert torch.equal(model.decode(model.encode(x)), x)


def test_a_label_is_heeded():
    model = perturbed(NICE(height=2, width=2, hidden=(16,), classes=3), 0.5)
    x = images(1, 1, 2, 2).expand(3, -1, -1, -1)
    generator = torch.Generator().manual_seed(0)
    z = model.encode(x, torch.arange(3))
    assert (z[0] - z[1]).abs().max() > 1e-3 and (z[1] - z[2]).abs().max() > 1e-3
    assert torch.equal(model.decode(z, torch.arange(3)), x)
    assert model.sample(3, label=torch.arange(3), generator=generator).shape == (3, 1, 2, 2)


@pytest.mark.parametrize("dequantisation", ["uniform", "variational"])
def test_gradients_of_inverted_memory_are_those_of_store(dequantisation):
    fields = {"height": 4, "width": 4, "hidden": (16, 16), "values": 17, "dequantisation": dequantisation}
    stored = NICE(**fields).double()
    inverted = NICE(**fields, memory="invert").double()
    x = images(8, 1, 4, 4, values=17)
    stored.initialize(x)
    perturbed(stored)
    inverted.load_state_dict(stored.state_dict())
    for model in (stored, inverted):
        model.log_prob(x, generator=torch.Generator().manual_seed(2)).sum().backward()
    for (name, a), b in zip(stored.named_parameters(), inverted.parameters(), strict=True):
        assert (a.grad - b.grad).norm() <= 1e-8 * a.grad.norm(), name


def test_inverted_memory_does_not_grow_with_depth():
    x, saved = images(16, 1, 8, 8, values=17), {}
    for layers in (2, 8):
        model = NICE.from_preset("digits", layers=layers, memory="invert")
        model.initialize(x)
        saved[layers] = saved_bytes(model, x)
    assert saved[2] == saved[8] < 30 * x.numel() * 4


def test_learns_the_digits():
    digits = pytest.importorskip("sklearn.datasets").load_digits().images
    x = torch.tensor(digits, dtype=torch.uint8)[:, None]
    model = NICE.from_preset("digits", hidden=(128, 128))
    model.initialize(x[:256])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        before = model.bits_per_dim(x[1500:], generator=generator).mean().item()
    for step in range(60):
        optimizer.zero_grad()
        image_likelihood(model, {"images": x[:1500][step % 20 :: 20]})["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        after = model.bits_per_dim(x[1500:], generator=generator).mean().item()
    assert after < before - 0.15 and after < math.log2(17)
    assert torch.equal(model.decode(model.encode(x)), x)


def test_a_model_is_the_same_after_a_copy():
    model = perturbed(NICE.from_preset("digits", hidden=(16,)))
    x = images(4, 1, 8, 8, values=17)
    model.eval()
    a, b = (m.log_prob(x, generator=torch.Generator().manual_seed(0)) for m in (model, copy.deepcopy(model)))
    assert torch.equal(a, b)

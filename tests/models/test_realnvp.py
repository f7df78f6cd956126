"""RealNVP: the figures of the paper, as patterns that can be counted, and what it learns."""

import math

import pytest
import torch

from waveflow.bijectors import BatchNorm, Coupling, Logit, MultiScale, Permutation, Squeeze
from waveflow.distributions import image_likelihood
from waveflow.errors import InputError
from waveflow.models import RealNVP


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


def small(**fields):
    return RealNVP(**{"height": 8, "width": 8, "blocks": 1, "hidden": 8, "norm": "actnorm", **fields})


def couplings(model):
    return [part for part in model.flow.bijector.modules() if isinstance(part, Coupling)]


def test_presets_are_the_papers():
    fields = {name: RealNVP.make_config(**preset) for name, preset in RealNVP.PRESETS.items()}
    assert (fields["cifar10"].blocks, fields["cifar10"].hidden, fields["cifar10"].norm) == (8, 64, "batch")
    assert (fields["faces64"].blocks, fields["faces64"].hidden, fields["faces64"].norm) == (2, 32, "batch")
    cifar, faces, mnist = (RealNVP.from_preset(name, hidden=2, blocks=1) for name in ("cifar10", "faces64", "mnist"))
    assert len(couplings(cifar)) == 3 + 3 + 4 and len(couplings(faces)) == 4 * 6 + 4
    assert cifar.latent_shape == (12, 16, 16) and mnist.latent_shape == (4, 14, 14)
    widths = [c.conditioner.network.first.out_channels for c in couplings(cifar)]
    assert widths == [2] * 3 + [4] * 7  # doubled after the squeeze
    assert max(c.conditioner.network.first.out_channels for c in couplings(faces)) == 2 * 16
    shapes = [tuple(z.shape[1:]) for z in _split(faces)]
    assert shapes == [(6, 32, 32), (12, 16, 16), (24, 8, 8), (48, 4, 4), (48, 4, 4)]


def _split(model):
    multi_scale = next(part for part in model.flow.bijector.modules() if isinstance(part, MultiScale))
    return multi_scale.split(torch.empty(1, *model.latent_shape))


def test_halves_of_squeezed_channels_are_diagonals_of_all_colours():
    level = next(part for part in small(channels=3).flow.bijector.modules() if isinstance(part, MultiScale)).levels[0]
    squeeze, order = (next(part for part in level if isinstance(part, kind)) for kind in (Squeeze, Permutation))
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    parity = ((rows + columns) % 2).expand(3, 4, 4)
    colour = torch.arange(3)[:, None, None].expand(3, 4, 4)
    z = order(squeeze(torch.stack([parity, colour]).float())[0])[0]
    assert (z[0, :6] == 0).all() and (z[0, 6:] == 1).all()
    assert z[1, :6].unique().tolist() == z[1, 6:].unique().tolist() == [0, 1, 2]


def test_each_pixel_is_changed_by_turns():
    """A coupling keeps what the one before it at the same scale has changed."""
    model = perturbed(small(channels=1, levels=2), 0.3).double()
    changed = []
    for coupling in couplings(model):
        channels = coupling.conditioner.network.first.in_channels * (1 if coupling.partition.in_place else 2)
        x = torch.randn(1, channels, 4, 4, dtype=torch.float64)
        changed.append((coupling(x)[0] != x)[0])
    for first, last in ((0, 2), (3, 5), (6, 9)):
        for i in range(first, last):
            assert (changed[i] ^ changed[i + 1]).all()
        assert changed[first].double().mean() == 0.5


def test_scales_are_bounded_by_learned_factors():
    model = small()
    coupling = couplings(model)[0]
    with torch.no_grad():
        coupling.conditioner.tanh_scale.fill_(0.3)
        coupling.conditioner.network.last.bias.fill_(100.0)
    _, log_det = coupling(torch.randn(2, 1, 8, 8))
    torch.testing.assert_close(log_det, torch.full((2,), 32 * 0.3))


def test_penalised_weights_are_scales():
    model = small(classes=2)
    names = {id(p): name for name, p in model.named_parameters()}
    penalised = [names[id(p)] for p in model.weight_scales()]
    assert len(penalised) == len(couplings(model)) * (1 + 2 + 2 + 1)  # input, block, two skips, the tanh's factor
    assert all(name.endswith(("weight.original0", "tanh_scale")) for name in penalised)
    assert all(name.startswith("flow.") for name in penalised)


@pytest.mark.parametrize("norm", ["batch", "actnorm"])
def test_latents_come_back_as_the_same_images(norm):
    model = perturbed(small(channels=3, norm=norm), 0.05)
    x = images(50, 3, 8, 8)
    for _ in range(5):
        model.log_prob(x)
    model.eval()
    assert torch.equal(model.decode(model.encode(x)), x)
    assert model.sample(3).shape == (3, 3, 8, 8)


def test_a_label_is_heeded():
    model = perturbed(small(classes=3), 0.5)
    x = images(1, 1, 8, 8).expand(3, -1, -1, -1)
    z = model.encode(x, torch.arange(3))
    assert (z[0] - z[1]).abs().max() > 1e-3 and (z[1] - z[2]).abs().max() > 1e-3
    assert model.sample(3, label=torch.arange(3)).shape == (3, 1, 8, 8)


@pytest.mark.parametrize("dequantisation", ["uniform", "variational"])
def test_gradients_of_inverted_memory_are_those_of_store(dequantisation):
    fields = {"channels": 2, "dequantisation": dequantisation, "dequantisation_hidden": 4}
    stored, inverted = small(**fields).double(), small(**fields, memory="invert").double()
    x = images(6, 2, 8, 8)
    stored.initialize(x)
    perturbed(stored)
    inverted.load_state_dict(stored.state_dict())
    for model in (stored, inverted):
        model.log_prob(x, generator=torch.Generator().manual_seed(2)).sum().backward()
    for (name, a), b in zip(stored.named_parameters(), inverted.parameters(), strict=True):
        assert (a.grad - b.grad).norm() <= 1e-8 * a.grad.norm(), name


def test_inverted_memory_does_not_grow_with_depth_of_the_networks():
    x, saved = images(8, 1, 8, 8), {}
    for blocks in (1, 4):
        model = small(blocks=blocks, memory="invert")
        model.initialize(x)
        saved[blocks] = saved_bytes(model, x)
    assert saved[1] == saved[4] < 30 * x.numel() * 4


def test_batch_statistics_settle_and_are_those_of_the_data():
    model = small(norm="batch", channels=3)
    x = images(64, 3, 8, 8)
    for _ in range(3):
        model.log_prob(x)
    first = next(part for part in model.flow.bijector.modules() if isinstance(part, BatchNorm))
    logits = Logit(0.05)((x.double() + 0.5) / 256)[0]
    torch.testing.assert_close(first.mean.double(), logits.mean((0, 2, 3)), atol=0.01, rtol=0)
    torch.testing.assert_close(first.variance.double(), logits.var((0, 2, 3)), atol=0.05, rtol=0)


@pytest.mark.parametrize("norm", ["batch", "actnorm"])
def test_learns_the_digits(norm):
    digits = pytest.importorskip("sklearn.datasets").load_digits().images
    x = torch.tensor(digits, dtype=torch.uint8)[:, None]
    model = RealNVP.from_preset("digits", hidden=16, blocks=1, norm=norm)
    model.initialize(x[:256])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def bits():
        model.eval()
        with torch.no_grad():
            value = model.bits_per_dim(x[1500:], generator=torch.Generator().manual_seed(0)).mean().item()
        model.train()
        return value

    before = bits()
    for step in range(30):
        optimizer.zero_grad()
        image_likelihood(model, {"images": x[:1500][step::30]})["loss"].backward()
        optimizer.step()
    assert bits() < min(before - 0.5, 3.0) < math.log2(17)


def test_compiles_as_one_graph_and_maps_by_vmap():
    model = perturbed(small(levels=1)).eval()
    y = torch.rand(3, 2, 1, 8, 8)
    expected = model.flow.log_prob(y)
    torch._dynamo.reset()
    z, log_det = torch.compile(model.flow.bijector, fullgraph=True, backend="eager")(y[0])
    torch.testing.assert_close(model.flow.base.log_prob(z) + log_det, expected[0])
    torch.testing.assert_close(torch.func.vmap(model.flow.log_prob)(y), expected)


def test_batch_normalisation_is_refused_under_inverted_memory():
    with pytest.raises(InputError, match=r'norm "actnorm" for memory "invert", since a batch .* got "batch"'):
        RealNVP.from_preset("cifar10", memory="invert")

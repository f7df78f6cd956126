"""What single layers promise beyond the contract, against independent computations."""

import copy
import math

import pytest
import torch
from registry import BIJECTORS, random

from waveflow.bijectors import (
    ActNorm,
    Affine,
    Chain,
    Checkerboard,
    Coupling,
    Halves,
    InvertibleConv1x1,
    MultiScale,
    Squeeze,
    Standardise,
)


def test_squeeze_of_a_signal_groups_samples_as_waveglow_does():
    x = torch.arange(24.0).reshape(1, 1, 24)
    z, _ = Squeeze(8, dims=1)(x)
    assert torch.equal(z, x[0, 0].unfold(0, 8, 8).T[None])


def test_squeeze_of_an_image_is_pixel_unshuffle():
    x = random(2, 3, 4, 6)
    assert torch.equal(Squeeze(2)(x)[0], torch.nn.functional.pixel_unshuffle(x, 2))


def test_1x1_convolution_is_a_convolution_and_starts_as_a_rotation():
    layer = InvertibleConv1x1(4)
    x = random(2, 4, 3, 5)
    z, log_det = layer(x)
    torch.testing.assert_close(z, torch.nn.functional.conv2d(x, layer.matrix()[:, :, None, None]))
    torch.testing.assert_close(log_det, torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(layer.matrix() @ layer.matrix().T, torch.eye(4), atol=1e-6, rtol=0)
    assert torch.linalg.det(layer.matrix()) > 0


def test_1x1_convolution_survives_a_negative_determinant():
    layer = InvertibleConv1x1(3)
    with torch.no_grad():
        layer.weight[0] *= -2
    _, log_det = layer(random(1, 3, 10))
    torch.testing.assert_close(log_det, torch.tensor([10 * math.log(2)]))


def test_plu_starts_as_the_same_rotation_as_plain():
    plain, plu = (InvertibleConv1x1(6, p, torch.Generator().manual_seed(5)) for p in ("plain", "plu"))
    torch.testing.assert_close(plain.matrix(), plu.matrix(), atol=1e-6, rtol=0)


def test_actnorm_standardises_the_first_training_batch_only():
    layer, x = ActNorm(3), 5 + 3 * random(16, 3, 20)
    layer.eval()
    assert torch.equal(layer(x)[0], x) and not layer.initialized
    layer.train()
    z, _ = layer(x)
    torch.testing.assert_close(z.mean((0, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std((0, 2), unbiased=False), torch.ones(3), atol=1e-5, rtol=0)
    shift = layer.shift.clone()
    layer(x + 100)
    assert torch.equal(layer.shift, shift)


def test_actnorm_remembers_its_initialisation_in_the_state_dict():
    layer, x = ActNorm(3), random(8, 3)
    layer(x)
    twin = ActNorm(3)
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(10 * x + 1)[0], layer(10 * x + 1)[0])


def test_checkerboard_keeps_pixels_of_even_parity():
    seen = {}

    def conditioner(kept, context):
        seen["kept"] = kept
        return torch.cat([torch.ones_like(kept), torch.zeros_like(kept)], 1)

    x = random(1, 2, 4, 6)
    for swap in (False, True):
        module = torch.nn.Module()
        module.forward = conditioner
        z, _ = Coupling(Checkerboard(swap), module, Affine())(x)
        parity = (torch.arange(4)[:, None] + torch.arange(6)) % 2 == int(swap)
        torch.testing.assert_close(z, torch.where(parity, x, x + 1))
        torch.testing.assert_close(seen["kept"], x * parity)


def test_scale_maps():
    x, raw = torch.ones(1, 3), torch.tensor([-20.0, 0.0, 20.0])
    for name, expected in {
        "exp": raw,
        "sigmoid": torch.sigmoid(raw.double() + 2).log().float(),
        "tanh_exp": 5 * torch.tanh(raw / 5),
        "gentle": 2 * torch.tanh(raw / 2),
    }.items():
        params = torch.stack([torch.zeros(3), raw])[None]
        torch.testing.assert_close(Affine(name)(x, params)[1][0], expected)
        torch.testing.assert_close(Standardise(name)(x, params)[1][0], -expected)


def test_standardise_with_a_normal_base_is_a_gaussian():
    x, mean, log_std = random(4, 3), random(1, 3), 0.3 * random(1, 3)
    z, log_derivative = Standardise("exp")(x, torch.stack([mean, log_std], 1).expand(4, -1, -1))
    found = torch.distributions.Normal(0, 1).log_prob(z) + log_derivative
    torch.testing.assert_close(found, torch.distributions.Normal(mean, log_std.exp()).log_prob(x))


def test_multiscale_splits_into_the_latents_of_each_level():
    levels = [Chain([Squeeze(2)]), Chain([Squeeze(2)]), Chain([])]
    flow, x = MultiScale(levels, [2, 3]), random(2, 1, 8, 8)
    z, _ = flow(x)
    latents = flow.split(z)
    assert [tuple(t.shape) for t in latents] == [(2, 2, 4, 4), (2, 3, 2, 2), (2, 5, 2, 2)]
    squeezed = torch.nn.functional.pixel_unshuffle(x, 2)
    again = torch.nn.functional.pixel_unshuffle(squeezed[:, 2:], 2)
    for found, expected in zip(latents, [squeezed[:, :2], again[:, :3], again[:, 3:]], strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(flow.merge(latents), z)


def test_deepcopies_are_apart():
    bijector, x, _ = BIJECTORS["Chain"]()
    bijector(x)
    twin = copy.deepcopy(bijector)
    with torch.no_grad():
        twin[0].shift.add_(1)
    assert not torch.equal(twin(x)[0], bijector(x)[0])


def test_checkerboard_of_a_signal_takes_the_answers_at_the_changed_places():
    class Place(torch.nn.Module):
        def forward(self, kept, context):
            place = torch.arange(kept.shape[-1], dtype=kept.dtype).expand_as(kept)
            return torch.cat([place, torch.zeros_like(place)], 1)

    z, _ = Coupling(Checkerboard(), Place(), Affine())(torch.zeros(1, 3, 6))
    assert torch.equal(z, torch.tensor([0.0, 1, 0, 3, 0, 5]).expand(1, 3, 6))


def test_a_conditioner_that_does_not_fit_is_refused():
    conditioner = torch.nn.Conv1d(1, 2, 1)
    conditioner.forward = lambda kept, context: torch.cat([kept, kept], 1)
    with pytest.raises(ValueError, match=r"gives \(4, 5\), got \(2, 5\)"):
        Coupling(Halves(), conditioner, Affine())(random(2, 3, 5))

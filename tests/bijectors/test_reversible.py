"""Chain(memory="invert"): the gradients of "store", without its memory."""

import copy

import pytest
import torch
from registry import BIJECTORS, random

from waveflow.bijectors import Chain
from waveflow.context import Ragged


def gradients(bijector, x, context, inverse=False):
    x = x.clone().requires_grad_()
    context = None if context is None else context.clone().requires_grad_()
    value, log_det = (bijector.inverse if inverse else bijector)(x, context)
    (value.sin().sum() + log_det.square().sum()).backward()
    inputs = [x] if context is None else [x, context]
    return [value, log_det, *(t.grad for t in inputs), *(p.grad for p in bijector.parameters())]


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", ["Chain, inverted memory", "Conditioned chain", "MultiScale, inverted memory"])
def test_gradients_equal_those_of_store(name, inverse):
    bijector, x, context = BIJECTORS[name]()
    bijector.double()
    x, context = x.double(), None if context is None else context.double()
    bijector(x, context)
    with torch.no_grad():
        for p in bijector.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype))
    stored = copy.deepcopy(bijector)
    for part in stored.modules():
        if isinstance(part, Chain):
            part.memory = "store"
    if inverse:
        x = bijector(x, context)[0].detach()
    for a, b in zip(gradients(bijector, x, context, inverse), gradients(stored, x, context, inverse), strict=True):
        assert (a - b).norm() <= 1e-8 * b.norm()


def test_one_layer_used_twice_collects_both_gradients():
    layers = list(BIJECTORS["Chain"]()[0])[1:3]
    x = random(3, 4, 5).double()
    results = [
        gradients(copy.deepcopy(Chain([*layers, *layers], memory)).double(), x, None) for memory in ("store", "invert")
    ]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_under_bfloat16_autocast_every_weight_gets_its_gradient():
    bijector, x, _ = BIJECTORS["Chain, inverted memory"]()
    bijector(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, log_det = bijector(x)
    (value.sum() + log_det.sum()).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in bijector.parameters())


def test_nothing_but_the_result_is_kept():
    """Storage that autograd holds on to does not grow with the number of layers; in "store" it does."""

    def kept(memory: str, steps: int) -> int:
        layers = [layer for _ in range(steps) for layer in list(BIJECTORS["Chain"]()[0])[1:3]]
        chain = Chain(layers, memory)
        weights = {p.untyped_storage().data_ptr() for p in chain.parameters()}
        held: dict[int, int] = {}

        def pack(t):
            storage = t.untyped_storage()
            if storage.data_ptr() not in weights:
                held[storage.data_ptr()] = storage.nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            result = chain(random(2, 4, 50).requires_grad_())
        assert result[0].requires_grad
        return sum(held.values())

    assert kept("invert", 8) == kept("invert", 1)
    assert kept("store", 8) > 4 * kept("store", 1)


def test_ragged_context_passes_through():
    bijector, x, _ = BIJECTORS["Conditioned chain"]()
    inner = bijector.bijector
    encoded = torch.randn(2, 3, 5, requires_grad=True)

    class Unwrap(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, kept, context):
            return self.network(kept, context.values * context.mask)

    plain = inner(x, encoded)[0].sum()
    (expected,) = torch.autograd.grad(plain, encoded)
    inner[2].conditioner = Unwrap(inner[2].conditioner)
    ragged = Ragged(encoded, torch.ones(2, 1, 5))
    (found,) = torch.autograd.grad(inner(x, ragged)[0].sum(), encoded)
    torch.testing.assert_close(found, expected)


def test_weights_changed_before_the_backward_pass_are_noticed():
    bijector, x, _ = BIJECTORS["Chain, inverted memory"]()
    bijector(x)
    value, _ = bijector(x)
    with torch.no_grad():
        bijector[0].shift.add_(1)
    with pytest.raises(RuntimeError, match="changed between the forward and the backward pass"):
        value.sum().backward()


def test_rebuilding_initialises_nothing():
    bijector, x, _ = BIJECTORS["Chain, inverted memory"]()
    value, _ = bijector.inverse(x)
    value.sum().backward()
    assert not bijector[0].initialized

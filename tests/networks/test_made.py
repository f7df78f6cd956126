"""MADE against autograd, a naive network and its own stepper."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from waveflow.networks import MADE, MaskedLinear, degree_mask
from waveflow.networks.dense import linear
from waveflow.testing import check_causal


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def perturbed(module: nn.Module, scale: float = 0.3) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return module


CONFIGURATIONS = {
    "plain": {},
    "one hidden layer": {"hidden": (20,)},
    "uneven widths": {"hidden": (9, 23, 14)},
    "narrow": {"hidden": (3, 2)},
    "order": {"order": [3, 0, 4, 1, 2]},
    "residual": {"hidden": (16, 16), "residual": True},
    "smooth": {"activation": torch.tanh},
    "context": {"context": 3},
    "context, order, residual": {"context": 3, "order": [4, 3, 2, 1, 0], "hidden": (16,), "residual": True},
}


def make(name: str) -> tuple[MADE, torch.Tensor | None]:
    torch.manual_seed(0)
    options = {"hidden": (16, 16), "outputs": 3, **CONFIGURATIONS[name]}
    return MADE(5, **options), random(4, 3, seed=5) if "context" in options else None


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_sees_only_what_comes_before(name):
    made, context = make(name)
    check_causal(made, random(4, 5), context)


@pytest.mark.parametrize("name", [n for n in CONFIGURATIONS if n != "narrow"])
def test_sees_all_that_comes_before(name):
    made, context = make(name)
    made = perturbed(made).double()
    context = None if context is None else context.double()
    x = random(4, 5).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: made(x, context).sum((0, 1)), x).abs().sum(1)
    place = made.order.argsort()
    assert torch.equal(jacobian > 0, place[:, None] > place)


@pytest.mark.parametrize("name", [n for n in CONFIGURATIONS if n.startswith("context")])
def test_first_feature_follows_the_context(name):
    made, context = make(name)
    made = perturbed(made)
    first = made.order[0]
    assert (made(random(4, 5), context) - made(random(4, 5), context + 1))[:, :, first].abs().min() > 0


def test_equals_a_network_of_masked_layers_written_out():
    made, _ = make("order")
    made = perturbed(made)
    place = [0] * 5
    for step, feature in enumerate([3, 0, 4, 1, 2]):
        place[feature] = step + 1
    hidden = [1 + 4 * unit // 16 for unit in range(16)]
    x = random(4, 5)
    for layer, ins, outs, sees in [
        (made.layers[0], place, hidden, lambda i, o: i <= o),
        (made.layers[1], hidden, hidden, lambda i, o: i <= o),
        (made.last, hidden, place * 3, lambda i, o: i < o),
    ]:
        y = torch.zeros(4, len(outs))
        for o, out_degree in enumerate(outs):
            y[:, o] = layer.bias[o] + sum(
                (layer.weight[o, i] * x[:, i] for i, in_degree in enumerate(ins) if sees(in_degree, out_degree)),
                torch.zeros(4),
            )
        x = y.relu()
    torch.testing.assert_close(made(random(4, 5)), y.reshape(4, 3, 5))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_starts_at_zero(name):
    made, context = make(name)
    assert not made(random(4, 5), context).any()


@pytest.mark.parametrize("context", [0, 2])
def test_a_single_feature_sees_the_context_at_most(context):
    made = perturbed(MADE(1, hidden=(8,), outputs=2, context=context))
    given = random(3, context) if context else None
    params = made(random(3, 1), given)
    assert torch.equal(params, made(random(3, 1, seed=9), given))
    assert (params[0] != params[1]).any() == bool(context)
    torch.testing.assert_close(made.stepper(3, given).params(), params[..., 0])


def test_order_travels_with_the_state():
    order = [2, 0, 1, 4, 3]
    made, other = perturbed(MADE(5, hidden=(16,), order=order)), MADE(5, hidden=(16,))
    nn.Sequential(other).load_state_dict(nn.Sequential(made).state_dict())
    assert torch.equal(other(random(4, 5)), made(random(4, 5)))
    check_causal(other, random(4, 5), order=torch.tensor(order))


def test_a_copy_is_whole():
    made = perturbed(MADE(5, hidden=(16,), order=[2, 0, 1, 4, 3]))
    twin = copy.deepcopy(made)
    twin.load_state_dict(MADE(5, hidden=(16,)).state_dict())
    check_causal(made, random(4, 5), order=torch.tensor([2, 0, 1, 4, 3]))
    check_causal(twin, random(4, 5), order=torch.arange(5))


def test_stays_in_float32_under_autocast():
    made = perturbed(MADE(5, hidden=(64, 64), context=2))
    x, context = random(4, 5), random(4, 2)
    exact = made(x, context)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made(x, context), exact)
        assert made(x.bfloat16(), context.bfloat16()).dtype == torch.float32
        stepper = made.stepper(4, context)
        torch.testing.assert_close(stepper.params(), exact[..., 0])


def test_large_products_equal_the_plain_ones():
    x, weight, bias = random(700, 96), random(80, 96, seed=1), random(80, seed=2)
    assert x.numel() * 80 > 2**22  # else both sides are F.linear
    one, other = ([t.clone().requires_grad_() for t in (x, weight, bias)] for _ in range(2))
    a, b = linear(*one), F.linear(*other)
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)
    assert a.is_contiguous()
    a.square().sum().backward()
    b.square().sum().backward()
    for p, q in zip(one, other, strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=0.05, rtol=1e-4)
    mapped = torch.func.vmap(linear, (0, None, None))(torch.stack([x, -x]), weight, bias)
    torch.testing.assert_close(mapped[1], F.linear(-x, weight, bias), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), atol=1e-4, rtol=1e-5)


def test_degree_mask_compares_each_with_each():
    outs, ins = torch.tensor([[0, 2], [1, 3]]), torch.tensor([0, 1, 2])
    for strict in (False, True):
        mask = degree_mask(outs, ins, strict)
        for i in range(2):
            for j in range(2):
                for k in range(3):
                    assert mask[i, j, k] == (outs[i, j] > ins[k] if strict else outs[i, j] >= ins[k])


class _Peeking(MADE):
    def forward(self, x, context=None):
        return super().forward(x, context) + 1e-3 * x.detach().round()[:, None]  # no gradient would tell


class _Deaf(MADE):
    def forward(self, x, context=None):
        return super().forward(torch.zeros_like(x), context)


class _Stumbling(MADE):
    def stepper(self, batch, context=None):
        stepper = super().stepper(batch, context)
        push = stepper.push
        stepper.push = lambda x: push(1.01 * x)
        return stepper


@pytest.mark.parametrize(
    ("broken", "message"),
    [(_Peeking, "output at .* changes"), (_Deaf, "ignores its input"), (_Stumbling, "stepper is off by .* at step")],
)
def test_check_causal_finds_what_is_broken(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_causal(broken(5, hidden=(16,)), random(4, 5))


def test_check_causal_finds_a_wrong_order():
    made = MADE(5, hidden=(16,), order=[0, 1, 3, 2, 4])
    with pytest.raises(AssertionError, match=r"not causal: the output at 2 .* step 2"):
        check_causal(made, random(4, 5), order=torch.arange(5))
    with pytest.raises(AssertionError, match="no permutation"):
        check_causal(made, random(4, 5), order=torch.tensor([0, 1, 2, 3, 3]))


def test_check_causal_finds_a_mask_that_is_not_strict():
    made = MADE(5, hidden=(16,))
    made.last = MaskedLinear(made._degrees[1], made.order.repeat(2) + 1)
    with pytest.raises(AssertionError, match="not causal"):
        check_causal(made, random(4, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MADE(3, order=[0, 1, 1]), r"order with each of 0 ... 2 once, got \[0, 1, 1\]"),
        (lambda: MADE(3, order=[0, 1]), r"each of 0 ... 2 once, got \[0, 1\]"),
        (lambda: MADE(3, order=[0.0, 1.0, 2.0]), "each of 0 ... 2 once"),
        (lambda: MADE(0), "positive sizes, got features=0"),
        (lambda: MADE(3, hidden=()), r"hidden=\(\)"),
        (lambda: MADE(3, hidden=(8, 0)), r"hidden=\(8, 0\)"),
        (lambda: MADE(3, hidden=(8, 9), residual=True), r"residual blocks of one width, got \(8, 9\)"),
        (lambda: MADE(3, hidden=(8,))(random(2, 4)), r"MADE expects \(B, 3\), got \(2, 4\)"),
        (lambda: MADE(3, hidden=(8,))(random(2, 1, 3)), r"got \(2, 1, 3\)"),
        (lambda: MADE(3, hidden=(8,), context=2)(random(2, 3)), "expects a context of 2 numbers, got None"),
        (lambda: MADE(3, hidden=(8,))(random(2, 3), random(2, 2)), r"expects no context, got \(2, 2\)"),
        (lambda: MADE(3, hidden=(8,), context=2)(random(2, 3), random(2, 4)), r"context \(B, 2\), got \(2, 4\)"),
        (lambda: MADE(3, hidden=(8,), context=2).stepper(2), "expects a context of 2 numbers, got None"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Gated PixelCNN's stack against the network written out, perturbation and its own stepper."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from waveflow.networks import GatedPixelCNNStack
from waveflow.testing import check_causal


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def perturbed(module: nn.Module, scale: float = 0.2) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return module


CONFIGURATIONS = {
    "one colour": ((1, 4, 5), {}),
    "three colours": ((3, 3, 4), {}),
    "uneven colours": ((3, 3, 2), {"hidden": 5}),
    "two colours, context": ((2, 3, 3), {"context": 2}),
    "context": ((1, 4, 4), {"context": 2}),
    "large kernels": ((1, 4, 5), {"kernel": 5, "first_kernel": 7}),
    "one layer": ((1, 4, 3), {"layers": 1}),
    "one pixel high": ((2, 1, 6), {}),
    "one pixel wide": ((2, 6, 1), {}),
}


def make(name: str) -> tuple[GatedPixelCNNStack, torch.Tensor, torch.Tensor | None]:
    shape, options = CONFIGURATIONS[name]
    stack = GatedPixelCNNStack(shape, **{"outputs": 3, "hidden": 6, "layers": 2, "first_kernel": 3, **options})
    return stack, random(2, *shape), torch.eye(2) if "context" in options else None


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_sees_only_what_comes_before_and_so_does_its_stepper(name):
    check_causal(*make(name))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_starts_at_zero(name):
    stack, x, context = make(name)
    assert not stack(x, context).any()


def gate(y: torch.Tensor) -> torch.Tensor:
    half = y.shape[1] // 2
    return torch.tanh(y[:, :half]) * torch.sigmoid(y[:, half:])


def vertical(conv, x: torch.Tensor, first: bool) -> torch.Tensor:
    """Each row of the output from a copy of the input in which the rows that it must not see are zero."""
    k = conv.weight.shape[3]
    whole = torch.zeros(*conv.weight.shape[:2], k, k)
    whole[:, :, : conv.weight.shape[2]] = conv.weight
    out = []
    for i in range(x.shape[2]):
        seen = x.clone()
        seen[:, :, i if first else i + 1 :] = 0
        out.append(F.conv2d(seen, whole, conv.bias, padding=k // 2)[:, :, i])
    return torch.stack(out, 2)


def horizontal(conv, x: torch.Tensor) -> torch.Tensor:
    """A loop over pixels to the left, and over colours within one."""
    reach = conv.margins[0]
    y = conv.bias[None, :, None, None].expand(len(x), -1, *x.shape[2:]).clone()
    for back in range(reach + 1):
        if reach - back == conv.weight.shape[3]:
            continue  # its own place, which is not stored where nothing may see it
        weight = conv.weight[:, :, 0, reach - back].clone()
        if back == 0:
            for o, i in product(*map(range, weight.shape)):
                ins, outs = conv.in_colours[i], conv.out_colours[o]
                weight[o, i] *= float(ins < outs if conv.strict else ins <= outs)
        shifted = F.pad(x, (back, 0))[..., : x.shape[3]]
        y += torch.einsum("oi,bihw->bohw", weight, shifted)
    return y


@pytest.mark.parametrize("colours", [1, 3])
def test_equals_the_network_written_out(colours):
    shape = (colours, 4, 5)
    stack = perturbed(GatedPixelCNNStack(shape, outputs=2, hidden=7, layers=3, first_kernel=5, context=2))
    x, label = random(2, *shape), torch.eye(2)
    with torch.no_grad():
        above = left = x
        for k, layer in enumerate(stack.layers):
            down = vertical(layer.vertical, above, k == 0) + (label @ layer.labels[0].weight.T)[..., None, None]
            right = horizontal(layer.horizontal, left) + (label @ layer.labels[1].weight.T)[..., None, None]
            right = right + torch.einsum("oi,bihw->bohw", layer.to_horizontal.weight[:, :, 0, 0], down)
            right = horizontal(layer.out, gate(right))
            above, left = gate(down), right if k == 0 else left + right
        for layer in (*stack.head, stack.last):
            left = horizontal(layer, left.relu())
        torch.testing.assert_close(stack(x, label), left.reshape(2, 2, *shape), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("shape", [(1, 12, 11), (3, 6, 7)])
def test_stepper_equals_the_pass(shape, batch):
    stack = perturbed(GatedPixelCNNStack(shape, outputs=4, hidden=20, layers=4, kernel=5, context=3), 0.1).double()
    x, label = random(batch, *shape).double(), random(batch, 3).double()
    stepper, steps = stack.stepper(batch, label), []
    for place in stack.positions(shape):
        steps.append(stepper.params())
        stepper.push(x.flatten(1)[:, place])
    expected = stack(x, label).flatten(2)[:, :, stack.positions(shape)]
    torch.testing.assert_close(torch.stack(steps, 2), expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("stack_that_is_told", ["vertical", "horizontal"])
def test_the_label_of_either_stack_reaches_the_first_number(stack_that_is_told):
    stack = perturbed(GatedPixelCNNStack((1, 2, 2), hidden=4, layers=1, first_kernel=3, context=2))
    nn.init.zeros_(stack.layers[0].labels[1 if stack_that_is_told == "vertical" else 0].weight)
    params = stack(torch.zeros(2, 1, 2, 2), torch.eye(2))
    assert (params[0] != params[1])[:, 0, 0, 0].all()


def test_the_vertical_stack_knows_all_colours_of_rows_above_and_none_of_its_own():
    stack = perturbed(GatedPixelCNNStack((3, 3, 3), hidden=6, layers=1, first_kernel=3)).double()
    conv = stack.layers[0].vertical
    jacobian = torch.autograd.functional.jacobian(lambda x: conv(x)[:, :, 1, 1], random(1, 3, 3, 3).double())
    assert (jacobian[0, :, 0, :, 0] != 0).all() and not jacobian[0, :, 0, :, 1:].any()


def test_autocast_and_other_dtypes():
    stack = perturbed(GatedPixelCNNStack((1, 4, 4), hidden=16, layers=2, context=2))
    x, label = random(2, 1, 4, 4), torch.eye(2)
    exact = stack(x, label)
    assert stack(x.bfloat16(), label.bfloat16()).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(stack(x, label).float(), exact, atol=0.1, rtol=0.1)
        stepper = stack.stepper(2, label)
        for place in range(16):
            torch.testing.assert_close(stepper.params(), exact.flatten(2)[..., place], atol=1e-4, rtol=1e-4)
            stepper.push(x.flatten(1)[:, place])


def test_inference_mode_and_gradients_outside():
    stack = perturbed(GatedPixelCNNStack((1, 3, 3), hidden=4, layers=2, first_kernel=3))
    x = random(2, 1, 3, 3)
    with torch.inference_mode():
        stepper = stack.stepper(2)
        for place in range(9):
            torch.testing.assert_close(stepper.params(), stack(x).flatten(2)[..., place], atol=1e-5, rtol=1e-4)
            stepper.push(x.flatten(1)[:, place])
    stepper = stack.stepper(2)
    stepper.push(x[:, 0, 0, 0].clone().requires_grad_())
    assert not stepper.params().requires_grad
    stack(x).sum().backward()
    assert all(p.grad is not None for p in stack.parameters())


def test_vmap_and_compile():
    stack = perturbed(GatedPixelCNNStack((3, 3, 3), hidden=6, layers=2, first_kernel=3))
    x = random(2, 3, 3, 3)
    compiled = torch.compile(stack, fullgraph=True, backend="eager")(x)
    torch.testing.assert_close(compiled, stack(x))
    mapped = torch.func.vmap(stack)(torch.stack([x, -x]))
    torch.testing.assert_close(mapped[1], stack(-x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GatedPixelCNNStack((1, 0, 3)), r"image \(C, H, W\) and positive sizes, got shape=\(1, 0, 3\)"),
        (lambda: GatedPixelCNNStack((3, 3, 3), hidden=2), "at least 3 colours, layers from 1 .* got hidden=2"),
        (lambda: GatedPixelCNNStack((1, 3, 3), layers=0), "layers=0"),
        (lambda: GatedPixelCNNStack((1, 3, 3), kernel=1), "kernels from 3, got .* kernel=1"),
        (lambda: GatedPixelCNNStack((1, 3, 3), first_kernel=4), r"odd sizes, got \(4, 4\)"),
        (lambda: GatedPixelCNNStack((1, 3, 3))(random(2, 3, 3, 3)), r"expects \(B, 1, 3, 3\), got \(2, 3, 3, 3\)"),
        (lambda: GatedPixelCNNStack((1, 3, 3), context=2).stepper(2), "a context of 2 numbers, got None"),
        (lambda: GatedPixelCNNStack((1, 3, 3))(random(2, 1, 3, 3), random(2, 2)), r"expects no context"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

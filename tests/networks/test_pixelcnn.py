"""PixelCNN's stack against plain convolutions with whole masked kernels, perturbation and its own stepper."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from waveflow.networks import PixelCNNStack
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
    "uneven colours": ((3, 3, 2), {"hidden": 10}),
    "two colours, context": ((2, 3, 3), {"context": 2}),
    "context": ((1, 4, 4), {"context": 2}),
    "large kernels": ((1, 4, 5), {"kernel": 5, "first_kernel": 7}),
    "1 x 1 blocks": ((1, 3, 4), {"kernel": 1}),
    "no blocks": ((1, 3, 4), {"layers": 0}),
    "one pixel high": ((2, 1, 6), {}),
    "one pixel wide": ((2, 6, 1), {}),
}


def make(name: str) -> tuple[PixelCNNStack, torch.Tensor, torch.Tensor | None]:
    shape, options = CONFIGURATIONS[name]
    stack = PixelCNNStack(shape, **{"outputs": 3, "hidden": 8, "layers": 2, "first_kernel": 3, **options})
    return stack, random(2, *shape), torch.eye(2) if "context" in options else None


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_sees_only_what_comes_before_and_so_does_its_stepper(name):
    check_causal(*make(name))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_starts_at_zero(name):
    stack, x, context = make(name)
    assert not stack(x, context).any()


def masked(conv, kernel: int, x: torch.Tensor) -> torch.Tensor:
    """A convolution with all k x k taps stored, each weight kept or not by the rule in words."""
    weight, middle = torch.zeros(conv.out_channels, conv.in_channels, kernel, kernel), kernel // 2
    for o, i, a, b in product(*map(range, weight.shape)):
        ins, outs = conv.in_colours[i], conv.out_colours[o]
        own = ins < outs if conv.strict else ins <= outs
        if a < middle or (a == middle and (b < middle or (b == middle and own))):
            weight[o, i, a, b] = conv.weight[o, i, a, b]
    return F.conv2d(x, weight, conv.bias, padding=middle)


def test_equals_the_network_written_out():
    stack = perturbed(PixelCNNStack((3, 4, 5), outputs=2, hidden=9, layers=2, first_kernel=5, context=2))
    x, label = random(2, 3, 4, 5), torch.eye(2)
    with torch.no_grad():
        assert [conv.out_colours.tolist() for conv in (stack.first, stack.blocks[0].conv, stack.last)] == [
            [0, 0, 0, 1, 1, 1, 2, 2, 2],
            [0, 0, 1, 2],
            [0, 1, 2, 0, 1, 2],
        ]
        y = masked(stack.first, 5, x) + (label @ stack.first_label.weight.T)[:, :, None, None]
        for block in stack.blocks:
            z = masked(block.narrow, 1, y.relu())
            z = masked(block.conv, 3, z.relu()) + (label @ block.label.weight.T)[:, :, None, None]
            y = y + masked(block.widen, 1, z.relu())
        for layer in (*stack.head, stack.last):
            y = masked(layer, 1, y.relu())
        torch.testing.assert_close(stack(x, label), y.reshape(2, 2, 3, 4, 5), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("shape", [(1, 12, 11), (3, 6, 7)])
def test_stepper_equals_the_pass(shape, batch):
    stack = perturbed(PixelCNNStack(shape, outputs=4, hidden=20, layers=3, context=3), 0.1).double()
    x, label = random(batch, *shape).double(), random(batch, 3).double()
    stepper, steps = stack.stepper(batch, label), []
    for place in stack.positions(shape):
        steps.append(stepper.params())
        stepper.push(x.flatten(1)[:, place])
    expected = stack(x, label).flatten(2)[:, :, stack.positions(shape)]
    torch.testing.assert_close(torch.stack(steps, 2), expected, atol=1e-11, rtol=0)


def test_two_steppers_do_not_meet():
    stack = perturbed(PixelCNNStack((1, 3, 3), hidden=8, layers=1, first_kernel=3))
    x, other, expected = random(2, 1, 3, 3), random(2, 1, 3, 3, seed=1), {}
    for name, image in (("x", x), ("other", other)):
        expected[name] = stack(image).detach().flatten(2)
    steppers = {"x": stack.stepper(2), "other": stack.stepper(2)}
    for place in range(9):
        for name, image in (("x", x), ("other", other)):
            torch.testing.assert_close(steppers[name].params(), expected[name][..., place], atol=1e-5, rtol=1e-4)
            steppers[name].push(image.flatten(1)[:, place])


def test_the_first_number_follows_the_label():
    stack = perturbed(PixelCNNStack((3, 2, 2), hidden=6, layers=1, first_kernel=3, context=2))
    params = stack(torch.zeros(2, 3, 2, 2), torch.eye(2))
    assert (params[0] != params[1])[:, :, 0, 0].all()


def test_positions_go_pixel_by_pixel_colour_by_colour():
    image = torch.tensor([[[0, 2], [4, 6]], [[1, 3], [5, 7]]])
    assert image.flatten()[PixelCNNStack((2, 2, 2), hidden=4).positions((2, 2, 2))].tolist() == list(range(8))


def test_masks_follow_a_change_of_weights_in_eval():
    stack = perturbed(PixelCNNStack((1, 4, 4), hidden=8, layers=1, first_kernel=3)).eval()
    x = random(2, 1, 4, 4)
    with torch.no_grad():
        before = stack(x)
        twin = perturbed(PixelCNNStack((1, 4, 4), hidden=8, layers=1, first_kernel=3), 0.5).eval()
        stack.load_state_dict(twin.state_dict())
        assert torch.equal(stack(x), twin(x)) and not torch.equal(stack(x), before)


def test_autocast_and_other_dtypes():
    stack = perturbed(PixelCNNStack((1, 4, 4), hidden=16, layers=1, context=2))
    x, label = random(2, 1, 4, 4), torch.eye(2)
    exact = stack(x, label)
    assert stack(x.bfloat16(), label.bfloat16()).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(stack(x, label).float(), exact, atol=0.1, rtol=0.1)
        stepper = stack.stepper(2, label)
        for place in range(16):
            torch.testing.assert_close(stepper.params(), exact.flatten(2)[..., place], atol=1e-4, rtol=1e-4)
            stepper.push(x.flatten(1)[:, place])


def test_vmap_and_compile():
    stack = perturbed(PixelCNNStack((3, 3, 3), hidden=6, layers=1, first_kernel=3))
    x = random(2, 3, 3, 3)
    compiled = torch.compile(stack, fullgraph=True, backend="eager")(x)
    torch.testing.assert_close(compiled, stack(x))
    mapped = torch.func.vmap(stack)(torch.stack([x, -x]))
    torch.testing.assert_close(mapped[1], stack(-x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PixelCNNStack((1, 0, 3)), r"image \(C, H, W\) and positive sizes, got shape=\(1, 0, 3\)"),
        (lambda: PixelCNNStack((3, 3)), r"got shape=\(3, 3\)"),
        (lambda: PixelCNNStack((1, 3, 3), outputs=0), "outputs=0"),
        (lambda: PixelCNNStack((3, 3, 3), hidden=5), "at least 2 x 3 colours, .* got hidden=5"),
        (lambda: PixelCNNStack((1, 3, 3), layers=-1), "layers=-1"),
        (lambda: PixelCNNStack((1, 3, 3), first_kernel=-1), "first_kernel=-1"),
        (lambda: PixelCNNStack((1, 3, 3), kernel=4), r"odd sizes, got \(4, 4\)"),
        (lambda: PixelCNNStack((1, 3, 3))(random(2, 1, 3, 4)), r"expects \(B, 1, 3, 3\), got \(2, 1, 3, 4\)"),
        (lambda: PixelCNNStack((1, 3, 3))(random(1, 3, 3)), r"got \(1, 3, 3\)"),
        (lambda: PixelCNNStack((1, 3, 3), context=2)(random(2, 1, 3, 3)), "a context of 2 numbers, got None"),
        (lambda: PixelCNNStack((1, 3, 3))(random(2, 1, 3, 3), random(2, 2)), r"expects no context, got \(2, 2\)"),
        (lambda: PixelCNNStack((1, 3, 3), context=2).stepper(2, random(2, 3)), r"context \(B, 2\), got \(2, 3\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""What the stacks see by gradients, against sets of positions passed from layer to layer."""

from collections.abc import Callable, Sequence
from functools import cache

import pytest
import torch
from torch import nn

from waveflow.networks import GatedPixelCNNStack, PixelCNNStack, receptive_field

Position = tuple[int, int, int]
Sees = Callable[[Position], frozenset[Position]]


def pixelcnn_sees(shape: Position, kernels: Sequence[int]) -> Sees:
    """Positions (colour, row, column) that the output at one depends on; the first of the kernels is mask A."""
    colours, height, width = shape

    @cache
    def sees(layer: int, c: int, i: int, j: int) -> frozenset:
        if not (0 <= i < height and 0 <= j < width):
            return frozenset()
        if layer == 0:
            return frozenset({(c, i, j)})
        found, reach = frozenset(), kernels[layer - 1] // 2
        for a in range(-reach, 1):
            for b in range(-reach, reach + 1 if a < 0 else 1):
                ends = colours if a < 0 or b < 0 else c if layer == 1 else c + 1
                for colour in range(ends):
                    found |= sees(layer - 1, colour, i + a, j + b)
        return found

    return lambda position: sees(len(kernels), *position)


def gated_sees(shape: Position, kernels: Sequence[int]) -> Sees:
    """The same for a vertical stack of rows above, which feeds a horizontal one in each layer."""
    colours, height, width = shape

    @cache
    def vertical(layer: int, i: int, j: int) -> frozenset:
        if not (0 <= i < height and 0 <= j < width):
            return frozenset()
        if layer == 0:
            return frozenset((colour, i, j) for colour in range(colours))
        reach = kernels[layer - 1] // 2
        lowest = 0 if layer == 1 else 1
        return frozenset().union(
            *(vertical(layer - 1, i + a, j + b) for a in range(-reach, lowest) for b in range(-reach, reach + 1))
        )

    @cache
    def horizontal(layer: int, c: int, i: int, j: int) -> frozenset:
        if not 0 <= j < width:
            return frozenset()
        if layer == 0:
            return frozenset({(c, i, j)})
        found = vertical(layer, i, j)
        for b in range(-(kernels[layer - 1] // 2), 1):
            ends = colours if b < 0 else c if layer == 1 else c + 1
            for colour in range(ends):
                found |= horizontal(layer - 1, colour, i, j + b)
        return found

    return lambda position: horizontal(len(kernels), *position)


def seen(stack: nn.Module, position: Position) -> set[Position]:
    return set(map(tuple, receptive_field(stack, stack.event_shape, position, draws=16).nonzero().tolist()))


def before(shape: Position, position: Position) -> set[Position]:
    rank = lambda p: (p[1], p[2], p[0])  # noqa: E731
    everything = torch.cartesian_prod(*map(torch.arange, shape)).tolist()
    return {tuple(p) for p in everything if rank(p) < rank(position)}


CASES = [
    ((1, 9, 9), (0, 8, 4), 5, 3, 2),
    ((1, 9, 9), (0, 8, 0), 7, 3, 3),
    ((1, 7, 8), (0, 6, 7), 3, 5, 1),
    ((3, 5, 5), (0, 4, 2), 3, 3, 2),
    ((3, 5, 5), (1, 3, 2), 3, 3, 2),
    ((3, 5, 5), (2, 4, 1), 5, 3, 1),
    ((2, 4, 6), (1, 0, 0), 3, 3, 1),
]


@pytest.mark.parametrize(("shape", "position", "first", "kernel", "layers"), CASES)
def test_pixelcnn_sees_exactly_what_its_taps_reach(shape, position, first, kernel, layers):
    stack = PixelCNNStack(shape, hidden=12, layers=layers, kernel=kernel, first_kernel=first)
    assert seen(stack, position) == pixelcnn_sees(shape, [first] + layers * [kernel])(position)


@pytest.mark.parametrize(("shape", "position", "first", "kernel", "layers"), CASES)
def test_gated_pixelcnn_sees_exactly_what_its_taps_reach(shape, position, first, kernel, layers):
    stack = GatedPixelCNNStack(shape, hidden=12, layers=layers, kernel=kernel, first_kernel=first)
    assert seen(stack, position) == gated_sees(shape, [first] + (layers - 1) * [kernel])(position)


def test_the_blind_spot_is_a_wedge_to_the_upper_right():
    shape, position = (1, 8, 12), (0, 7, 3)
    stack = PixelCNNStack(shape, hidden=12, layers=10, first_kernel=5)
    wedge = {(0, i, j) for _, i, j in before(shape, position) if j - 3 > 7 - i + 1}  # a 5 x 5 and many 3 x 3
    assert wedge and before(shape, position) - seen(stack, position) == wedge


@pytest.mark.parametrize("colour", [0, 2])
def test_the_gated_stack_has_no_blind_spot(colour):
    shape, position = (3, 6, 6), (colour, 5, 0)
    stack = GatedPixelCNNStack(shape, hidden=12, layers=4)
    assert seen(stack, position) == before(shape, position)


def test_a_linear_map_shows_its_weights():
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([0.0, 0.0, 3.0, -2.0]))

        def forward(self, x, context=None):
            return (x * self.weight).cumsum(-1)[:, None]

    field = receptive_field(Weighted(), (4,), (2,), perturbation=0.0, draws=2000)
    torch.testing.assert_close(field, torch.tensor([0, 0, 3, 0]).double() * (2 / torch.pi) ** 0.5, atol=0.1, rtol=0)


def test_the_network_is_left_as_it_was_and_draws_are_repeatable():
    stack = PixelCNNStack((1, 3, 3), hidden=4, layers=1, first_kernel=3, context=2)
    state = {name: value.clone() for name, value in stack.state_dict().items()}
    label = torch.eye(2)[:1]
    one, other = (receptive_field(stack, (1, 3, 3), (0, 2, 2), label) for _ in range(2))
    assert torch.equal(one, other)
    assert all(torch.equal(state[name], value) for name, value in stack.state_dict().items())


@pytest.mark.parametrize(
    ("position", "options", "message"),
    [
        ((0, 3, 0), {}, r"within \(1, 3, 3\), got \(0, 3, 0\)"),
        ((0, 0), {}, r"got \(0, 0\)"),
        ((0, 0, -1), {}, r"got \(0, 0, -1\)"),
        ((0, 0, 0), {"draws": 0}, "at least 1 draw, got 0"),
    ],
)
def test_bad_input_is_named(position, options, message):
    with pytest.raises(ValueError, match=message):
        receptive_field(PixelCNNStack((1, 3, 3), hidden=4, layers=0), (1, 3, 3), position, **options)

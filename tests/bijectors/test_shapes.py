"""Shape and order maps on sizes nobody chose."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from waveflow.bijectors import (
    Alternating,
    Chain,
    Checkerboard,
    Halves,
    InvertibleConv1x1,
    MultiScale,
    Permutation,
    Squeeze,
)

small = st.integers(1, 4)
quick = settings(max_examples=40, deadline=None)


def assert_rearranges(bijector, x):
    """Every element is kept, in another place, and put back."""
    z, log_det = bijector(x)
    assert tuple(z.shape[1:]) == bijector.output_shape(tuple(x.shape[1:])) and not log_det.any()
    assert torch.equal(z.flatten(1).sort().values, x.flatten(1).sort().values)
    assert torch.equal(bijector.inverse(z)[0], x)


@quick
@given(batch=st.integers(0, 3), channels=small, factor=small, rows=small, columns=small, seed=st.integers(0, 99))
def test_squeezes_and_permutations(batch, channels, factor, rows, columns, seed):
    x = torch.randn(batch, channels, rows * factor, columns * factor)
    assert_rearranges(Squeeze(factor), x)
    assert_rearranges(Squeeze(factor, dims=1), x.flatten(2))
    assert_rearranges(Permutation.random(channels, torch.Generator().manual_seed(seed)), x)


@quick
@given(batch=st.integers(0, 3), levels=st.integers(1, 3), channels=st.integers(1, 3), size=st.integers(1, 2))
def test_multiscale_of_squeezes(batch, levels, channels, size):
    x = torch.randn(batch, channels, size * 2**levels, size * 2**levels)
    flow = MultiScale([Chain([Squeeze(2)]) for _ in range(levels)], [2] * (levels - 1))
    assert_rearranges(flow, x)
    latents = flow.split(flow(x)[0])
    assert torch.equal(flow.merge(latents), flow(x)[0])
    assert [t.shape[1] for t in latents[:-1]] == [2] * (levels - 1)


@quick
@given(
    batch=st.integers(0, 3),
    channels=st.integers(2, 5),
    height=small,
    width=small,
    swap=st.booleans(),
    kind=st.integers(0, 2),
)
def test_partitions_divide_and_merge(batch, channels, height, width, swap, kind):
    partition = (Halves, Alternating, Checkerboard)[kind](swap)
    x = torch.randn(batch, 2 * channels if kind == 1 else channels, height, 2 * width)
    kept, changed = partition.split(x)
    assert kept.numel() + changed.numel() == x.numel()
    assert torch.equal(partition.merge(kept, changed), x)


@quick
@given(channels=st.integers(1, 6), length=st.integers(1, 9), parametrization=st.sampled_from(["plain", "plu"]))
def test_1x1_convolutions_invert(channels, length, parametrization):
    layer = InvertibleConv1x1(channels, parametrization, torch.Generator().manual_seed(0)).double()
    x = torch.randn(2, channels, length, dtype=torch.float64)
    z, log_det = layer(x)
    back, inverse_log_det = layer.inverse(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det, -inverse_log_det)

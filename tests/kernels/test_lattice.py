"""The normalised lattice: three syntheses, one analysis, and a filter in direct form."""

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from waveflow.kernels import lattice_analysis, lattice_synthesis
from waveflow.kernels.lattice import analyse_plain

FAST = ["numba", "blocks"]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reflections(batch, blocks, order, spread=0.8):
    return torch.tanh(spread * random(batch, blocks, order, seed=1))


def predictor(reflection):
    """[1, -a_1, ..., -a_P] of one set of reflection coefficients, by the textbook's step-up recursion."""
    a = np.array([1.0])
    for k in reflection.tolist():
        a = np.append(a, 0.0)
        a = a - k * a[::-1]
    return a


# order below, at and above the block; whole and broken last blocks; one sample
SHAPES = [
    (2, 5, 8, 16, 77),
    (2, 4, 8, 8, 30),
    (2, 5, 8, 4, 20),
    (2, 7, 10, 4, 27),
    (1, 1, 3, 16, 5),
    (2, 3, 1, 4, 12),
    (1, 1, 4, 4, 1),
]


@pytest.mark.parametrize(("batch", "blocks", "order", "block", "samples"), SHAPES)
@pytest.mark.parametrize("begun", [False, True])
def test_all_syntheses_agree_and_are_inverted_by_the_analysis(batch, blocks, order, block, samples, begun):
    k, v = reflections(batch, blocks, order), random(batch, samples)
    state = random(batch, order, seed=2) if begun else None
    plain, plain_end = lattice_synthesis(v, k, block, state, "loop")
    torch.testing.assert_close(lattice_analysis(plain, k, block, state), v, atol=1e-11, rtol=0)
    for method in FAST:
        x, end = lattice_synthesis(v, k, block, state, method)
        torch.testing.assert_close(x, plain, atol=1e-11, rtol=0)
        if samples == blocks * block:
            torch.testing.assert_close(end, plain_end, atol=1e-11, rtol=0)


@pytest.mark.parametrize(("batch", "blocks", "order", "block", "samples"), SHAPES)
@pytest.mark.parametrize("begun", [False, True])
def test_compiled_analysis_is_the_plain_one(batch, blocks, order, block, samples, begun):
    inputs = random(batch, samples), reflections(batch, blocks, order), random(batch, order, seed=2)
    inputs = [t.requires_grad_() for t in inputs]
    plain = analyse_plain(*inputs, block, not begun)
    fast = lattice_analysis(*inputs[:2], block, inputs[2] if begun else None)
    torch.testing.assert_close(fast, plain, atol=1e-12, rtol=1e-11)
    used = inputs if begun else inputs[:2]
    for a, b in zip(
        torch.autograd.grad(fast.sin().sum(), used), torch.autograd.grad(plain.sin().sum(), used), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("begun", [False, True])
def test_gradients_of_the_analysis(begun):
    inputs = [t.requires_grad_() for t in (random(2, 11), reflections(2, 3, 4, 0.5), random(2, 4, seed=3))]

    def analysis(x, k, state=None):
        return lattice_analysis(x, k, 4, state)

    torch.autograd.gradcheck(analysis, inputs if begun else inputs[:2])
    torch.autograd.gradgradcheck(analysis, inputs if begun else inputs[:2])


def test_long_signals_are_synthesised_by_blocks_in_bounded_memory(monkeypatch):
    k, v = reflections(2, 11, 5), random(2, 84)
    whole = lattice_synthesis(v, k, 8, None, "loop")[0]
    for at_once in (1, 6, 1024):
        monkeypatch.setattr("waveflow.kernels.lattice._BLOCKS_AT_ONCE", at_once)
        torch.testing.assert_close(lattice_synthesis(v, k, 8, None, "blocks")[0], whole, atol=1e-11, rtol=0)


def test_a_steady_filter_is_the_predictor_in_direct_form():
    k = reflections(1, 1, 6).expand(1, 10, 6)
    x = random(1, 160)
    a = predictor(k[0, 0])
    scale = float((1 - k[0, 0].square()).prod().sqrt())
    found = lattice_analysis(x, k, 16)[0].numpy()
    np.testing.assert_allclose(found[6:], (lfilter(a, [scale], x[0].numpy()))[6:], atol=1e-12)
    v = random(1, 160, seed=4)
    for method in ("loop", *FAST):
        start = lattice_synthesis(v[:, :16], k, 16, None, method)
        x, _ = lattice_synthesis(v[:, 16:], k, 16, start[1], method)
        memory = np.array([-a[j:] @ start[0][0].numpy()[::-1][: len(a) - j] for j in range(1, len(a))])
        expected, _ = lfilter([scale], a, v[0, 16:].numpy(), zi=memory)
        np.testing.assert_allclose(x[0].numpy(), expected, atol=1e-11)


def test_white_from_the_first_sample_on():
    """Of a stationary process the analysis makes uncorrelated unit variances, also where there is no past yet."""
    k = reflections(1, 1, 5).expand(1, 3, 5)
    synthesis = torch.stack([lattice_synthesis(e[None], k, 4, None, "loop")[0][0] for e in torch.eye(12).double()], 1)
    covariance = synthesis @ synthesis.T  # of the process that unit white noise makes
    for lag in range(12):
        torch.testing.assert_close(covariance.diagonal(lag), covariance.diagonal(lag)[:1].expand(12 - lag))
    torch.testing.assert_close(covariance[0, 0], torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("method", ["loop", *FAST])
def test_energy_never_exceeds_that_of_the_input(method):
    """However the filter is switched; a filter in direct form blows up on such coefficients."""
    k, v = reflections(4, 100, 12, spread=2.5), random(4, 400)
    x, _ = lattice_synthesis(v, k, 4, None, method)
    assert (x.square().sum(1) <= v.square().sum(1) * 100).all() and x.abs().max() <= v.norm(dim=1).max()
    past, out = np.zeros(12), []
    for t in range(400):
        a = predictor(k[0, t // 4])
        out.append(float(v[0, t]) - a[1:] @ past)
        past = np.append(out[-1], past[:-1])
    assert np.abs(out).max() > 1e6


@pytest.mark.parametrize("method", ["loop", *FAST])
def test_pieces_with_the_state_between_equal_the_whole(method):
    k, v = reflections(2, 7, 6), random(2, 28)
    whole, end = lattice_synthesis(v, k, 4, None, method)
    pieces, state = [], None
    for a, b in ((0, 2), (2, 3), (3, 7)):
        piece, state = lattice_synthesis(v[:, 4 * a : 4 * b], k[:, a:b], 4, state, method)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-12, rtol=0)
    torch.testing.assert_close(state, end)


@pytest.mark.parametrize("method", FAST)
def test_gradients_of_first_and_second_order(method):
    k, v, state = reflections(2, 3, 4, 0.5).requires_grad_(), random(2, 11), random(2, 4, seed=3)
    v.requires_grad_(), state.requires_grad_()
    for begun in (False, True):
        inputs = (v, k, state) if begun else (v, k)

        def synthesis(v, k, state=None):
            return lattice_synthesis(v, k, 4, state, method)[0]

        torch.autograd.gradcheck(synthesis, inputs)
        torch.autograd.gradgradcheck(synthesis, inputs[:2] if begun else inputs)
        found = torch.autograd.grad(synthesis(*inputs).sin().sum(), inputs)
        plain = lattice_synthesis(v, k, 4, state if begun else None, "loop")[0]
        for a, b in zip(found, torch.autograd.grad(plain.sin().sum(), inputs), strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


@pytest.mark.parametrize("method", FAST)
def test_compiles_and_maps(method):
    k, v = reflections(6, 3, 4).reshape(3, 2, 3, 4), random(3, 2, 11)

    def synthesis(v, k):
        return lattice_synthesis(v, k, 4, None, method)[0]

    each = torch.stack([synthesis(v[i], k[i]) for i in range(3)])
    torch.testing.assert_close(torch.func.vmap(synthesis)(v, k), each)
    torch.testing.assert_close(torch.func.vmap(synthesis, (0, None))(v, k[0])[1], synthesis(v[1], k[0]))
    mapped = torch.func.vmap(lambda x, k: lattice_analysis(x, k, 4), (None, 0))(v[0], k)
    torch.testing.assert_close(mapped[2], lattice_analysis(v[0], k[2], 4))
    compiled = torch.compile(synthesis, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(v[0], k[0]), each[0])


@pytest.mark.parametrize("method", ["loop", *FAST])
def test_nothing_in_nothing_out(method):
    k = reflections(2, 3, 4)
    assert lattice_synthesis(random(0, 12), k[:0], 4, None, method)[0].shape == (0, 12)
    assert lattice_analysis(random(0, 12), k[:0], 4).shape == (0, 12)
    assert lattice_analysis(random(2, 0), k[:, :0], 4).shape == (2, 0)
    assert lattice_synthesis(random(2, 0), k[:, :0], 4, None, method)[0].shape == (2, 0)


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match="auto, loop, numba, blocks, got 'fast'"):
        lattice_synthesis(random(1, 4), reflections(1, 1, 2), 4, method="fast")


@pytest.mark.parametrize("call", [lattice_analysis, lattice_synthesis])
def test_filters_that_do_not_fit_are_named(call):
    with pytest.raises(ValueError, match=r"filters \(2, 7 or more, P\) for 2 signals of 27 samples.*got \(2, 3, 5\)"):
        call(random(2, 27), reflections(2, 3, 5), 4)
    with pytest.raises(ValueError, match=r"filters \(3, 2 or more, P\).*got \(2, 3, 5\)"):
        call(random(3, 8), reflections(2, 3, 5), 4)
    with pytest.raises(ValueError, match=r"a state \(2, 5\), got \(2, 4\)"):
        call(random(2, 8), reflections(2, 3, 5), 4, random(2, 4))

"""The Levinson-Durbin recursion against solving the normal equations."""

import pytest
import torch
from scipy.linalg import solve_toeplitz

from waveflow.kernels import levinson_durbin
from waveflow.kernels.levinson import solve_plain


def autocorrelation(order, batch=(3, 2)):
    """Of random spectra with a range of 60 dB, so that it is positive definite."""
    spectrum = torch.exp(3 * torch.randn(*batch, 33, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    return torch.fft.irfft(spectrum, 64)[..., : order + 1]


def predictors(reflection):
    """Coefficients a_1 ... a_P by the textbook's step-up recursion."""
    a = []
    for m, k in enumerate(reflection):
        a = [a[j] - k * a[m - 1 - j] for j in range(m)] + [k]
    return a


@pytest.mark.parametrize("order", [1, 2, 20])
def test_solves_the_normal_equations(order):
    r = autocorrelation(order)
    reflection = levinson_durbin(r)
    assert reflection.shape == (3, 2, order) and (reflection.abs() < 1).all()
    for i in range(3):
        for j in range(2):
            expected = solve_toeplitz(r[i, j, :-1].numpy(), r[i, j, 1:].numpy())
            found = torch.stack(predictors(reflection[i, j]))
            torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-8, rtol=1e-8)
            error = r[i, j, 0] * (1 - reflection[i, j].square()).prod()
            torch.testing.assert_close(error, r[i, j, 0] - (found * r[i, j, 1:]).sum())


def test_white_noise_is_not_predicted():
    assert not levinson_durbin(torch.tensor([2.0, 0.0, 0.0, 0.0])).any()


def test_gradients():
    r = autocorrelation(4).requires_grad_()
    torch.autograd.gradcheck(levinson_durbin, r)
    torch.autograd.gradgradcheck(levinson_durbin, r)


def test_compiled_recursion_is_the_plain_one():
    r = autocorrelation(20).requires_grad_()
    fast, plain = levinson_durbin(r), solve_plain(r)
    torch.testing.assert_close(fast, plain)
    weights = torch.randn(fast.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (a,), (b,) = (torch.autograd.grad((k * weights).sum(), r) for k in (fast, plain))
    torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7 * float(b.abs().max()))


def test_maps_and_takes_nothing():
    r = autocorrelation(4)
    torch.testing.assert_close(torch.func.vmap(levinson_durbin, 1, 1)(r), levinson_durbin(r))
    torch.testing.assert_close(torch.func.vmap(levinson_durbin)(r[0]), levinson_durbin(r[0]))
    assert levinson_durbin(r[:0]).shape == (0, 2, 4)

"""The Levinson-Durbin recursion, batched and differentiable."""

import torch
from torch import Tensor


def levinson_durbin(autocorrelation: Tensor) -> Tensor:
    r"""Reflection coefficients of the linear predictors of orders 1 to P.

    .. math::
        k_m = \frac{r_m - \sum_{j=1}^{m-1} a_j^{(m-1)} r_{m-j}}{E_{m-1}}, \quad
        a_m^{(m)} = k_m, \quad a_j^{(m)} = a_j^{(m-1)} - k_m a_{m-j}^{(m-1)}, \quad E_m = (1 - k_m^2) E_{m-1}

    so that the prediction of order P is :math:`\sum_j a_j^{(P)} x_{t-j}` and its error has variance
    :math:`r_0 \prod_m (1 - k_m^2)` (Levinson, 1947; Durbin, 1960; in this form Makhoul, 1975).

    Args:
        autocorrelation: r_0 ... r_P along the last axis, (..., P + 1), of a positive definite sequence; float64 is
            advised, since speech reaches condition numbers of 1e8.

    Returns:
        (..., P), each in (-1, 1). Compiled by numba on CPUs.
    """
    if autocorrelation.device.type == "cpu":
        from waveflow.kernels.levinson_numba import solve  # numba takes half a second to import

        return solve(autocorrelation) if autocorrelation.ndim > 1 else solve(autocorrelation[None])[0]
    return solve_plain(autocorrelation)


def solve_plain(autocorrelation: Tensor) -> Tensor:
    """The same in PyTorch, for other devices and to compare with."""
    r0, lags = autocorrelation[..., :1], autocorrelation[..., 1:]
    predictor = lags[..., :0]
    error, coefficients = r0[..., 0], []
    for m in range(lags.shape[-1]):
        k = (lags[..., m] - (predictor * lags[..., :m].flip(-1)).sum(-1)) / error
        coefficients.append(k)
        predictor = torch.cat([predictor - k[..., None] * predictor.flip(-1), k[..., None]], -1)
        error = error * (1 - k.square())
    return torch.stack(coefficients, -1)

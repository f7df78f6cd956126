"""Whether chains have mixed, and what their draws are worth."""

from typing import Literal

import numpy as np
from torch import Tensor

from waveflow.errors import InputError


def r_hat(samples: Tensor) -> Tensor:
    """Rank-normalised split R-hat of each coordinate: near 1 if the chains agree, above 1.01 hardly.

    Vehtari, Gelman, Simpson, Carpenter & Buerkner, 2021 (arXiv:1903.08008), computed by ArviZ.

    Args:
        samples: (chains, draws, *event).

    Returns:
        (*event), float64. NaN for a coordinate that never changes.

    Raises:
        InputError: for fewer than 2 chains or 4 draws, values that are not finite, or if ArviZ is missing.
    """
    return _by_arviz("rhat", samples, least_chains=2, method="rank")


def effective_sample_size(samples: Tensor, kind: Literal["bulk", "tail"] = "bulk") -> Tensor:
    """How many independent draws the chains' correlated ones are worth, for each coordinate.

    Vehtari et al., 2021 (arXiv:1903.08008), computed by ArviZ.

    Args:
        samples: (chains, draws, *event).
        kind: ``"bulk"`` for means and medians, ``"tail"`` for the 5 % and 95 % quantiles.

    Returns:
        (*event), float64. For a coordinate that never changes ArviZ reports all draws, this function NaN.

    Raises:
        InputError: for no chains or fewer than 4 draws, values that are not finite, another kind, or without ArviZ.
    """
    if kind not in ("bulk", "tail"):
        raise InputError(f'effective_sample_size expects kind "bulk" or "tail", got {kind!r}')
    quantiles = {"prob": (0.05, 0.95)} if kind == "tail" else {}
    return _by_arviz("ess", samples, least_chains=1, method=kind, **quantiles)


def _by_arviz(name: str, samples: Tensor, least_chains: int, **options) -> Tensor:
    # A second to load, which no other use of the package should wait for.
    try:
        from arviz_stats.base import array_stats
    except ImportError as error:
        raise InputError("diagnostics need the package arviz-stats: pip install 'waveflow[sampling]'") from error

    if samples.ndim < 2 or samples.shape[0] < least_chains or samples.shape[1] < 4:
        expected = f"at least {least_chains} chain{'s' * (least_chains > 1)} of at least 4 draws"
        raise InputError(f"diagnostics expect (chains, draws, ...) with {expected}, got {tuple(samples.shape)}")
    if not samples.isfinite().all():
        raise InputError("diagnostics expect values that are finite, got NaN or inf")
    values = samples.detach().cpu().double()
    moving = (values != values[:1, :1]).flatten(0, 1).any(0)
    with np.errstate(all="ignore"):
        result = getattr(array_stats, name)(values.numpy(), chain_axis=0, draw_axis=1, **options)
    result = values.new_tensor(result)
    return result.where(moving, float("nan")).to(samples.device)

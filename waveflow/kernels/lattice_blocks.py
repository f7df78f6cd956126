r"""The normalised lattice's synthesis, all blocks at once: for devices that are slow one step at a time.

Within a block the filter is fixed, so with w the state before it and h the P past samples that would have left w,

.. math::
    A x = v - H h, \quad w = B h \quad \Rightarrow \quad x = X v + O w, \quad w' = u + \Phi w,

where A and H hold the predictor of order P as banded Toeplitz matrices and the rows of B are the backward predictors of
orders 0 to P - 1. X v and O are triangular solves; the states follow from all (Phi, u) by a scan of log2 N
levels, since two blocks compose to :math:`(\Phi_2 \Phi_1, u_2 + \Phi_2 u_1)`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def synthesise(v: Tensor, reflection: Tensor, block: int, state: Tensor, start: bool) -> tuple[Tensor, Tensor]:
    """See :func:`waveflow.kernels.lattice_synthesis`."""
    batch, samples = v.shape
    blocks, order = reflection.shape[1:]
    v = F.pad(v, (0, blocks * block - samples)).reshape(batch, blocks, block, 1)

    predictor, backward = _predictors(reflection)
    lag = torch.arange(block, device=v.device)[:, None] - torch.arange(-order, block, device=v.device)
    banded = F.pad(predictor, (0, block))[..., lag.clamp(0, order + 1)] * (lag >= 0)
    early = min(-(-order // block), blocks) if start else 0
    if early:
        banded = torch.cat([_growing(predictor[:, :early], backward[:, :early], lag), banded[:, early:]], 1)
    history, analysis = banded[..., :order].flip(-1), banded[..., order:]
    unwhiten = torch.linalg.solve_triangular(backward, torch.eye(order, dtype=v.dtype, device=v.device), upper=False)
    response = torch.linalg.solve_triangular(analysis, torch.cat([v, -history @ unwhiten], -1), upper=False)
    past = torch.cat([response.flip(-2), F.pad(unwhiten, (1, 0))], -2)[..., :order, :]
    after = backward @ past
    if early:
        end = torch.arange(1, early + 1, device=v.device)[:, None, None] * block
        known = torch.arange(order, device=v.device)[:, None] < end
        after = torch.cat([after[:, :early] * known, after[:, early:]], 1)
    u, transition = after.split([1, order], -1)

    before, after = _scan(transition, u, state[:, :, None])
    x = response[..., :1] + response[..., 1:] @ before
    return x.flatten(1)[:, :samples], after[..., 0]


def _growing(predictor: Tensor, backward: Tensor, lag: Tensor) -> Tensor:
    """The rows of a signal's first blocks: sample t is predicted by order t, as long as that is less than P."""
    blocks, order = backward.shape[1:3]
    m, j = torch.arange(order, device=lag.device)[:, None], torch.arange(order, device=lag.device)
    lower = backward.gather(3, (m - j).clamp_min(0).expand_as(backward)) * (m >= j)
    forward = torch.cat([F.pad(lower, (0, 1)), predictor[:, :, None]], 2)
    time = torch.arange(blocks * len(lag), device=lag.device).clamp_max(order).reshape(blocks, len(lag))
    rows = F.pad(forward, (0, len(lag)))[:, torch.arange(blocks, device=lag.device)[:, None], time]
    return rows.gather(3, lag.clamp(0, order + 1).expand(*rows.shape[:3], -1)) * (lag >= 0)


def _predictors(reflection: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised error filters: of order P (..., P + 1), and backward ones of orders 0 to P - 1 (..., P, P)."""
    order = reflection.shape[-1]
    scale = (1 - reflection.square()).rsqrt()
    forward = F.pad(torch.ones_like(reflection[..., :1]), (0, order))
    backward, rows = forward, []
    for m in range(order):
        rows.append(backward[..., :order])
        k, c = reflection[..., m, None], scale[..., m, None]
        delayed = F.pad(backward[..., :-1], (1, 0))
        forward, backward = (forward - k * delayed) * c, (delayed - k * forward) * c
    return forward, torch.stack(rows, -2)


def _scan(transition: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """States (B, N, P, 1) before each block and (B, P, 1) behind the last, of w' = u + transition w (Kogge & Stone)."""
    blocks, reach = u.shape[1], 1
    u = torch.cat([u[:, :1] + transition[:, :1] @ state[:, None], u[:, 1:]], 1)
    while reach < blocks:
        late = transition[:, reach:]
        u = torch.cat([u[:, :reach], u[:, reach:] + late @ u[:, :-reach]], 1)
        transition = torch.cat([transition[:, :reach], late @ transition[:, :-reach]], 1)
        reach *= 2
    states = torch.cat([state[:, None], u], 1)
    return states[:, :-1], states[:, -1]

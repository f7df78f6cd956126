r"""The normalised lattice: linear prediction whose filter may change at will and stay bounded.

With reflection coefficients k_1 ... k_P of the moment and :math:`c_m = \sqrt{1 - k_m^2}`, from :math:`f_0 = b_0 = x_t`,

.. math::
    f_m(t) = (f_{m-1}(t) - k_m b_{m-1}(t-1)) / c_m, \qquad b_m(t) = (b_{m-1}(t-1) - k_m f_{m-1}(t)) / c_m

gives the forward and backward prediction errors of all orders, scaled to the variance of x, and :math:`v_t = f_P(t)`.
Read from P to 0 it is the synthesis, and there each stage is a rotation,

.. math::
    f_{m-1}(t) = c_m f_m(t) + k_m b_{m-1}(t-1), \qquad b_m(t) = c_m b_{m-1}(t-1) - k_m f_m(t),

so the energy of the state (b_0 ... b_{P-1}) never grows by more than that of the input, however k is switched (Gray &
Markel, 1975: A normalized digital filter structure). A filter in direct form has no such bound.

At the beginning of a signal order m takes part from t = m on, when there are m samples to predict from: v then is
white from the first sample on for a stationary signal.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCKS_AT_ONCE = 1024  # with all their matrices half a GB at order 128
METHODS = ("auto", "loop", "numba", "blocks")


def lattice_analysis(x: Tensor, reflection: Tensor, block: int, state: Tensor | None = None) -> Tensor:
    """Prediction errors v of a signal, all times at once.

    Args:
        x: (B, T).
        reflection: (B, N, P), one filter for each block of samples, N * block >= T.
        block: samples for which a filter holds.
        state: (B, P), b_0 ... b_{P-1} before the first sample, if these samples are not the first of their signal.

    Returns:
        (B, T), scaled to the variance of x. Compiled by numba on CPUs.

    Raises:
        ValueError: if the filters do not cover the samples, or the batches differ.
    """
    _check("lattice_analysis", x, reflection, block, state)
    start = state is None
    if start:
        state = x.new_zeros(x.shape[0], reflection.shape[2])
    if x.device.type == "cpu":
        from waveflow.kernels.lattice_numba import analyse  # numba takes half a second to import

        return analyse(x, reflection, state, block, start)
    return analyse_plain(x, reflection, state, block, start)


def analyse_plain(x: Tensor, reflection: Tensor, state: Tensor, block: int, start: bool) -> Tensor:
    """The analysis in PyTorch, for other devices and to compare with."""
    batch, samples = x.shape
    if not samples:
        return x
    blocks, order = reflection.shape[1:]
    scale = (1 - reflection.square()).rsqrt()
    time = torch.arange(blocks * block, device=x.device).reshape(blocks, block)
    f = b = F.pad(x, (0, blocks * block - samples)).reshape(batch, blocks, block)
    for m in range(order):
        k, c, lower = reflection[:, :, m, None], scale[:, :, m, None], f
        b = torch.cat([state[:, m, None], b.flatten(1)[:, :-1]], 1).reshape(batch, blocks, block)
        f, b = (f - k * b) * c, (b - k * f) * c
        if start:
            begun = time > m
            f, b = torch.where(begun, f, lower), torch.where(begun, b, 0.0)
    return f.flatten(1)[:, :samples]


def lattice_synthesis(
    v: Tensor, reflection: Tensor, block: int, state: Tensor | None = None, method: str = "auto"
) -> tuple[Tensor, Tensor]:
    """The signal whose prediction errors are v: the inverse of :func:`lattice_analysis`.

    Args:
        v: (B, T).
        reflection: (B, N, P), N * block >= T.
        block: samples for which a filter holds.
        state: (B, P) as returned for the samples before, if these are not the first; T of the call before has to be a
            multiple of ``block``.
        method: ``"loop"``: the recursion in PyTorch, sample by sample, to compare with. ``"numba"``: the same
            compiled, for CPUs. ``"blocks"``: all blocks at once from zero state, then a scan of logarithmic depth over
            their states, for GPUs. ``"auto"``: by the device.

    Returns:
        x (B, T), and the state (B, P) behind it (where T is a multiple of ``block``), which carries no gradient.
        Gradients flow to v, reflection and the given state.

    Raises:
        ValueError: for another method, if the filters do not cover the samples, or the batches differ.
    """
    _check("lattice_synthesis", v, reflection, block, state)
    if method not in METHODS:
        raise ValueError(f"lattice_synthesis expects a method of {', '.join(METHODS)}, got {method!r}")
    if method == "auto":
        method = "numba" if v.device.type == "cpu" else "blocks"
    start, reflection = state is None, reflection[:, : -(-v.shape[1] // block)]
    if start:
        state = v.new_zeros(v.shape[0], reflection.shape[2])
    if not v.shape[1]:
        return v, state.detach()
    if method == "numba":
        from waveflow.kernels.lattice_numba import synthesise  # numba takes half a second to import

        return synthesise(v, reflection, state, block, start)
    if method == "loop":
        x, state = _synthesise(v, reflection, block, state, start)
        return x, state.detach()
    from waveflow.kernels.lattice_blocks import synthesise

    pieces, early = [], -(-reflection.shape[2] // block)
    step = max(early, _BLOCKS_AT_ONCE // max(1, v.shape[0]))
    for first in range(0, reflection.shape[1], step):
        part = v[:, first * block : (first + step) * block]
        x, state = synthesise(part, reflection[:, first : first + step], block, state, start)
        pieces, start = [*pieces, x], False
    return torch.cat(pieces, 1), state.detach()


def _check(name: str, signal: Tensor, reflection: Tensor, block: int, state: Tensor | None) -> None:
    batch, samples = signal.shape
    blocks = -(-samples // block)
    if reflection.shape[0] != batch or reflection.shape[1] < blocks:
        raise ValueError(
            f"{name} expects filters ({batch}, {blocks} or more, P) for {batch} signals of {samples} samples in blocks "
            f"of {block}, got {tuple(reflection.shape)}"
        )
    if state is not None and tuple(state.shape) != (batch, reflection.shape[2]):
        raise ValueError(f"{name} expects a state ({batch}, {reflection.shape[2]}), got {tuple(state.shape)}")


def _synthesise(v: Tensor, reflection: Tensor, block: int, state: Tensor, start: bool) -> tuple[Tensor, Tensor]:
    order = reflection.shape[2]
    scale = (1 - reflection.square()).sqrt()
    b, x = list(state.unbind(1)), []
    for t in range(v.shape[1]):
        k, c = reflection[:, t // block], scale[:, t // block]
        f, upper = v[:, t], [None] * (order + 1)
        for m in range(min(order, t) if start else order, 0, -1):
            f, upper[m] = (
                c[:, m - 1] * f + k[:, m - 1] * b[m - 1],
                c[:, m - 1] * b[m - 1] - k[:, m - 1] * f,
            )
        x.append(f)
        b = [f, *(torch.zeros_like(f) if u is None else u for u in upper[1:order])]
    return torch.stack(x, 1) if x else v, torch.stack(b, 1)

"""From one image to another, by way of the latents between theirs."""

from collections.abc import Callable

import torch
from torch import Tensor

from waveflow.errors import InputError
from waveflow.images.latents import LatentModel, decode, encode, labels_of, require_latents


def linear(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(1 - t) a + t b, of latents (B, ...); t is between 0 and 1."""
    return torch.lerp(a, b, t.to(a))


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    r"""On the great circle between latents (B, ...), whose length changes evenly (Shoemake, 1985; White, 2016).

    .. math::
        \frac{\sin((1-t)\,\omega)}{\sin \omega}\, a + \frac{\sin(t\,\omega)}{\sin \omega}\, b, \qquad
        \cos \omega = \frac{a \cdot b}{|a|\,|b|}

    taken of the directions, times (1 - t) \|a\| + t \|b\|: halfway between two draws from a Gaussian, a straight line
    passes where hardly any draw lies. Where a and b are parallel or opposite, or one is 0, the line is straight.
    """
    wide_a, wide_b, t = a.double().flatten(1), b.double().flatten(1), t.to(a.device).double()
    norm_a, norm_b = (v.norm(dim=1, keepdim=True) for v in (wide_a, wide_b))
    unit_a, unit_b = wide_a / norm_a.clamp_min(1e-300), wide_b / norm_b.clamp_min(1e-300)
    omega = (unit_a * unit_b).sum(1, keepdim=True).clamp(-1, 1).acos()
    sine = omega.sin()
    direction = (torch.sin((1 - t) * omega) * unit_a + torch.sin(t * omega) * unit_b) / sine.clamp_min(1e-300)
    curved = torch.lerp(norm_a, norm_b, t) * direction
    return (
        torch.where((sine > 1e-6) & (norm_a * norm_b > 0), curved, torch.lerp(wide_a, wide_b, t))
        .to(a.dtype)
        .reshape(a.shape)
    )


def interpolate(
    model: LatentModel,
    a: Tensor,
    b: Tensor,
    steps: int = 8,
    label: Tensor | int | None = None,
    between: Callable[[Tensor, Tensor, Tensor], Tensor] = linear,
    batch_size: int = 64,
) -> Tensor:
    """Images on the way from a to b, both included: as a model has them, since these are decoded from their latents.

    Args:
        model: a flow of images.
        a: where from: uint8 (C, H, W), or (B, C, H, W) for B ways at once.
        b: where to, of the same shape.
        steps: images of each way, at least 2.
        label: of a model with classes: one for all, or int64 (B,).
        between: :func:`linear` or :func:`spherical`.
        batch_size: images that are decoded at a time.

    Returns:
        uint8 (steps, C, H, W), or (steps, B, C, H, W).

    Raises:
        InputError: for fewer than 2 steps, images of different shapes, a model without latents, or what it refuses.
        FloatingPointError: for latents or pixels that are not finite.
    """
    require_latents(model, "interpolation")
    if steps < 2:
        raise InputError(f"interpolation expects at least 2 steps, the first and the last image, got {steps}")
    if a.shape != b.shape or a.ndim not in (3, 4):
        raise InputError(
            f"interpolation expects two images of one shape (C, H, W), or two batches of them, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    single = a.ndim == 3
    a, b = (a[None], b[None]) if single else (a, b)
    label = labels_of(label, len(a))
    z_a, z_b = (encode(model, images, label, batch_size) for images in (a, b))
    ts = torch.linspace(0, 1, steps, dtype=torch.float64)
    # The ends as they are: rounding on the way to the last one might cost it a pixel.
    z = torch.cat([z_a, *(between(z_a, z_b, t) for t in ts[1:-1]), z_b])
    images = decode(model, z, None if label is None else label.repeat(steps), batch_size)
    return images if single else images.reshape(steps, *a.shape)

"""Bijectors and the transforms of ``torch.distributions``, each seen as the other."""

from math import prod

from torch import Tensor
from torch.distributions import Transform, constraints

from waveflow.bijectors.base import Bijector, log_det_dtype, sum_event, zero_log_det
from waveflow.context import Context


class BijectorTransform(Transform):
    """A bijector as a torch transform from latent to data; made by ``bijector.as_transform``.

    Args:
        bijector: the map; the transform is its ``inverse``.
        event_ndim: axes of an event; all further ones in front are batch axes.
        context: one conditioning for each item of the batch, or None.
    """

    bijective = True

    def __init__(self, bijector: Bijector, event_ndim: int, context: Context = None):
        super().__init__()
        self.bijector, self.event_ndim, self.context = bijector, event_ndim, context

    @property
    def domain(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, self.event_ndim)

    codomain = domain

    def _call(self, z: Tensor) -> Tensor:
        return self._over_batch(self.bijector.inverse, z)[0]

    def _inverse(self, x: Tensor) -> Tensor:
        return self._over_batch(self.bijector, x)[0]

    def log_abs_det_jacobian(self, z: Tensor, x: Tensor) -> Tensor:
        return self._over_batch(self.bijector.inverse, z)[1]

    def _over_batch(self, call, x: Tensor) -> tuple[Tensor, Tensor]:
        batch = x.shape[: x.ndim - self.event_ndim]
        y, log_det = call(x.reshape(prod(batch), *x.shape[len(batch) :]), self.context)
        return y.reshape(*batch, *y.shape[1:]), log_det.reshape(batch)


class FromTransform(Bijector):
    """A torch transform from latent to data as a bijector: ``inverse`` is the transform, ``forward`` its inverse.

    Args:
        transform: bijective, keeping the shape of what it is given, its log-det elementwise or over trailing axes.

    Raises:
        ValueError: if the transform is not bijective.

    Example:
        >>> import torch
        >>> from torch.distributions import ExpTransform
        >>> z, log_det = FromTransform(ExpTransform())(torch.ones(1, 3))
        >>> z.tolist(), log_det.item()
        ([[0.0, 0.0, 0.0]], -0.0)
    """

    def __init__(self, transform: Transform):
        super().__init__()
        if not transform.bijective:
            raise ValueError(f"FromTransform expects a bijective transform, got {transform}")
        self.transform = transform

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        z = self.transform.inv(x)
        return z, -self._log_det(z, x)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        x = self.transform(z)
        return x, self._log_det(z, x)

    def _log_det(self, z: Tensor, x: Tensor) -> Tensor:
        log_det = self.transform.log_abs_det_jacobian(z, x).to(log_det_dtype(x))
        return sum_event(log_det) if log_det.ndim > 1 else zero_log_det(x) + log_det

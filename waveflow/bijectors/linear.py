"""Linear maps: 1x1 convolutions and permutations across channels, LU factors over vectors."""

import torch
from torch import Tensor, nn

from waveflow.bijectors.base import Bijector, log_det_dtype, zero_log_det
from waveflow.bijectors.univariate import LOG_SCALES
from waveflow.context import Context


class InvertibleConv1x1(Bijector):
    r"""The same matrix W applied to the channels at every position (Glow: arXiv:1807.03039, section 3.2).

    .. math::
        z_{:,p} = W x_{:,p}, \qquad \log|\det| = P \log|\det W|

    with P positions. One small log-determinant serves all positions; products and log-det are in float32 or wider, also
    under autocast; the inverse matrix is computed in float64 at every call, so that it is never stale.

    Args:
        channels: C.
        parametrization: ``"plain"``: W itself, log-det by ``slogdet`` (finite for either sign of the determinant).
            ``"plu"``: W = P L (U + diag(sign * exp(log_diagonal))), P and the signs fixed, log-det a sum.
        generator: of the random rotation that W starts as.

    Shape:
        ``(B, C, ...)`` to ``(B, C, ...)``: signals and images alike.

    Raises:
        ValueError: for another parametrization.
    """

    constant_log_det = True

    def __init__(self, channels: int, parametrization: str = "plain", generator: torch.Generator | None = None):
        super().__init__()
        self.channels = channels
        self.parametrization = parametrization
        rotation = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64, generator=generator))[0]
        if torch.linalg.det(rotation) < 0:
            rotation[:, 0] = -rotation[:, 0]
        if parametrization == "plain":
            self.weight = nn.Parameter(rotation.float())
        elif parametrization == "plu":
            p, lower, upper = torch.linalg.lu(rotation)
            diagonal = upper.diagonal()
            self.register_buffer("permutation", p.argmax(1))
            self.register_buffer("sign", diagonal.sign().float())
            self.lower = nn.Parameter(lower.tril(-1).float())
            self.upper = nn.Parameter(upper.triu(1).float())
            self.log_diagonal = nn.Parameter(diagonal.abs().log().float())
        else:
            raise ValueError(f'InvertibleConv1x1 expects parametrization "plain" or "plu", got {parametrization!r}')

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._multiply(self.matrix(log_det_dtype(x)), x), self._log_det(x)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        inverse = torch.linalg.inv(self.matrix(torch.float64)).to(log_det_dtype(z))
        return self._multiply(inverse, z), -self._log_det(z)

    def expects(self, event: tuple[int, ...], inverse: bool) -> str | None:
        c = self.channels
        return None if event[0] == c else f"{c} channels (C, ...)"

    def folded(self) -> "FoldedConv1x1":
        """A frozen equal of this map for inference, its inverse and its log-determinant worked out once."""
        return FoldedConv1x1(self)

    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """W (C, C)."""
        if self.parametrization == "plain":
            return self.weight.to(dtype)
        eye = torch.eye(len(self.sign), dtype=dtype, device=self.sign.device)
        lower = self.lower.to(dtype).tril(-1) + eye
        upper = self.upper.to(dtype).triu(1) + torch.diag(self.sign.to(dtype) * self.log_diagonal.to(dtype).exp())
        with torch.autocast(self.sign.device.type, enabled=False):
            return (lower @ upper)[self.permutation]

    def _multiply(self, matrix: Tensor, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return (matrix @ x.to(matrix.dtype).unsqueeze(-1).flatten(2)).reshape(x.shape).to(x.dtype)

    def _log_det(self, x: Tensor) -> Tensor:
        return x.shape[2:].numel() * self._log_det_of_one(log_det_dtype(x)) + zero_log_det(x)

    def _log_det_of_one(self, dtype: torch.dtype) -> Tensor:
        if self.parametrization == "plu":
            return self.log_diagonal.to(dtype).sum()
        return torch.linalg.slogdet(self.weight.to(dtype))[1]


class FoldedConv1x1(InvertibleConv1x1):
    """An :class:`InvertibleConv1x1` with all that follows from its matrix kept beside it, in float64.

    Factorising a matrix takes longer than multiplying by it, and on a CUDA device the host waits for it, which a CUDA
    graph cannot record.

    Args:
        convolution: whose equal it is, as it is now.
    """

    def __init__(self, convolution: InvertibleConv1x1):
        Bijector.__init__(self)
        self.channels = convolution.channels
        with torch.no_grad():
            matrix = convolution.matrix(torch.float64)
            self.register_buffer("weight", matrix.clone())
            self.register_buffer("inverse_weight", torch.linalg.inv(matrix))
            self.register_buffer("log_det_of_one", convolution._log_det_of_one(torch.float64))

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._multiply(self.inverse_weight.to(log_det_dtype(z)), z), -self._log_det(z)

    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.weight.to(dtype)

    def _log_det_of_one(self, dtype: torch.dtype) -> Tensor:
        return self.log_det_of_one.to(dtype)


class Permutation(Bijector):
    """Channel i of z is channel ``order[i]`` of x.

    Args:
        order: a permutation of 0 ... C-1.

    Shape:
        ``(B, C, ...)`` to ``(B, C, ...)``.

    Raises:
        ValueError: if ``order`` is not a permutation.
    """

    constant_log_det = True

    def __init__(self, order: Tensor):
        super().__init__()
        order = torch.as_tensor(order)
        if not torch.equal(order.sort().values, torch.arange(order.numel(), device=order.device)):
            raise ValueError(f"Permutation expects each of 0 ... {order.numel() - 1} once, got {order.tolist()}")
        self.register_buffer("order", order)

    @classmethod
    def reverse(cls, channels: int) -> "Permutation":
        """Last channel first."""
        return cls(torch.arange(channels - 1, -1, -1))

    @classmethod
    def random(cls, channels: int, generator: torch.Generator | None = None) -> "Permutation":
        """A permutation drawn once."""
        return cls(torch.randperm(channels, generator=generator))

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return x[:, self.order], zero_log_det(x)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return z[:, self.order.argsort()], zero_log_det(z)

    def expects(self, event: tuple[int, ...], inverse: bool) -> str | None:
        return None if event[0] == self.order.numel() else f"{self.order.numel()} channels (C, ...)"


class LULinear(Bijector):
    r"""A full matrix over the features of vectors, by its factors, with a bias.

    .. math::
        z = P L (U + \operatorname{diag}(d))\, x + b, \qquad \log|\det| = \sum_i \log d_i

    L and U are strictly triangular beside L's unit diagonal, d = exp(5 tanh(raw / 5)), P is a permutation drawn once.
    It mixes features between the layers of spline flows (Durkan et al., 2019; arXiv:1906.04032, section 4), where it
    starts as P. The inverse solves two triangular systems. Both directions compute in float64, at little cost beside
    the layers around them, and so lose no more than x and z are rounded.

    Args:
        features: D.
        bias: whether there is a b.
        permute: whether P is random; otherwise it is the identity.
        generator: of the permutation.

    Shape:
        ``(B, D)`` to ``(B, D)``.
    """

    constant_log_det = True

    def __init__(
        self, features: int, bias: bool = True, permute: bool = True, generator: torch.Generator | None = None
    ):
        super().__init__()
        self.event_shape = (features,)
        order = torch.randperm(features, generator=generator) if permute else torch.arange(features)
        self.register_buffer("order", order)
        self.lower = nn.Parameter(torch.zeros(features, features))
        self.upper = nn.Parameter(torch.zeros(features, features))
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        lower, upper, log_diagonal = self._factors()
        with torch.autocast(x.device.type, enabled=False):
            z = x.to(lower.dtype) @ (lower @ upper)[self.order].T
        if self.bias is not None:
            z = z + self.bias
        return z.to(x.dtype), zero_log_det(x) + log_diagonal.sum().to(log_det_dtype(x))

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        lower, upper, log_diagonal = self._factors()
        wide = z.to(lower.dtype)
        if self.bias is not None:
            wide = wide - self.bias
        columns = wide[:, self.order.argsort()].T
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, columns, upper=True).T
        return x.to(z.dtype), zero_log_det(z) - log_diagonal.sum().to(log_det_dtype(z))

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """L, U with its diagonal, and the logarithm of that diagonal, in float64."""
        lower, upper = self.lower.double(), self.upper.double()
        log_diagonal = LOG_SCALES["tanh_exp"](upper.diagonal())
        eye = torch.eye(len(upper), dtype=upper.dtype, device=upper.device)
        return lower.tril(-1) + eye, upper.triu(1) + torch.diag_embed(log_diagonal.exp()), log_diagonal

"""Masks from integer degrees: who may see whom in an autoregressive network."""

from torch import Tensor, nn

from waveflow.networks.dense import linear


def degree_mask(out_degrees: Tensor, in_degrees: Tensor, strict: bool) -> Tensor:
    """Which outputs see which inputs: the outer comparison of their degrees.

    An input's degree is its place in the order; a hidden unit of degree m may depend on inputs up to place m. Masks of
    MADE, of masked convolutions and of causal convolutions (whose degrees are times) are all made here.

    Args:
        out_degrees: (*out) integers.
        in_degrees: (*in) integers.
        strict: True for ``out > in`` (the layer that must not see its own position), False for ``out >= in``.

    Returns:
        (*out, *in) booleans, true where a weight is allowed.
    """
    out_degrees = out_degrees.reshape(*out_degrees.shape, *[1] * in_degrees.ndim)
    return out_degrees > in_degrees if strict else out_degrees >= in_degrees


class MaskedLinear(nn.Linear):
    """``nn.Linear`` whose weight is multiplied by a mask.

    Args:
        in_degrees: (in,) integers.
        out_degrees: (out,) integers.
        strict: see :func:`degree_mask`.
    """

    def __init__(self, in_degrees: Tensor, out_degrees: Tensor, strict: bool = False):
        super().__init__(len(in_degrees), len(out_degrees))
        self.strict = strict
        self.register_buffer("mask", degree_mask(out_degrees, in_degrees, strict), persistent=False)

    def set_degrees(self, in_degrees: Tensor, out_degrees: Tensor) -> None:
        """Make the mask anew."""
        self.mask.copy_(degree_mask(out_degrees, in_degrees, self.strict))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.mask, self.bias)

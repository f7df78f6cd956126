"""Invertible maps with their log-determinants: the core of every flow."""

from waveflow.bijectors.autoregressive import Autoregressive
from waveflow.bijectors.base import Bijector, Chain, Conditioned, Identity, Inverse, validation
from waveflow.bijectors.batch_norm import BatchNorm
from waveflow.bijectors.conditional_elementwise import ConditionalElementwise
from waveflow.bijectors.coupling import Coupling
from waveflow.bijectors.flip import Flip
from waveflow.bijectors.interop import FromTransform
from waveflow.bijectors.linear import InvertibleConv1x1, LULinear, Permutation
from waveflow.bijectors.linear_prediction import LinearPrediction
from waveflow.bijectors.logit import Logit
from waveflow.bijectors.mixture import MixtureOfLogistics, MixtureOfLogisticsCDF
from waveflow.bijectors.norm import ActNorm
from waveflow.bijectors.offset import Offset
from waveflow.bijectors.partition import Alternating, Checkerboard, Halves, Partition
from waveflow.bijectors.planar import Planar
from waveflow.bijectors.radial import Radial
from waveflow.bijectors.shape import Flatten, MultiScale, Squeeze
from waveflow.bijectors.spline import RationalQuadraticSpline
from waveflow.bijectors.sylvester import Sylvester
from waveflow.bijectors.univariate import LOG_SCALES, Affine, Elementwise, Shift, Standardise, Univariate
from waveflow.bijectors.zscore import ZScore

__all__ = [
    "LOG_SCALES",
    "ActNorm",
    "Affine",
    "Alternating",
    "Autoregressive",
    "BatchNorm",
    "Bijector",
    "Chain",
    "Checkerboard",
    "ConditionalElementwise",
    "Conditioned",
    "Coupling",
    "Elementwise",
    "Flatten",
    "Flip",
    "FromTransform",
    "Halves",
    "Identity",
    "Inverse",
    "InvertibleConv1x1",
    "LULinear",
    "LinearPrediction",
    "Logit",
    "MixtureOfLogistics",
    "MixtureOfLogisticsCDF",
    "MultiScale",
    "Offset",
    "Partition",
    "Permutation",
    "Planar",
    "Radial",
    "RationalQuadraticSpline",
    "Shift",
    "Squeeze",
    "Standardise",
    "Sylvester",
    "Univariate",
    "ZScore",
    "validation",
]

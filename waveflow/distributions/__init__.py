"""Distributions: bases, and flows that are made of a base and a bijector."""

from waveflow.distributions.autoregressive import AutoregressiveDistribution
from waveflow.distributions.bases import Base, StandardLogistic, StandardNormal
from waveflow.distributions.bits import bits_per_dim
from waveflow.distributions.dequantise import UniformDequantisation, VariationalDequantisation
from waveflow.distributions.flow import Flow
from waveflow.distributions.heads import Bernoulli, Categorical, DiscretisedMixtureOfLogistics, Head
from waveflow.distributions.objectives import image_likelihood, maximum_likelihood, reverse_kl, speech_likelihood

__all__ = [
    "AutoregressiveDistribution",
    "Base",
    "Bernoulli",
    "Categorical",
    "DiscretisedMixtureOfLogistics",
    "Flow",
    "Head",
    "StandardLogistic",
    "StandardNormal",
    "UniformDequantisation",
    "VariationalDequantisation",
    "bits_per_dim",
    "image_likelihood",
    "maximum_likelihood",
    "reverse_kl",
    "speech_likelihood",
]

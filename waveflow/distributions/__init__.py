"""Distributions: bases, and flows that are made of a base and a bijector."""

from waveflow.distributions.bases import Base, StandardLogistic, StandardNormal
from waveflow.distributions.flow import Flow
from waveflow.distributions.objectives import maximum_likelihood, reverse_kl

__all__ = ["Base", "Flow", "StandardLogistic", "StandardNormal", "maximum_likelihood", "reverse_kl"]

"""Distributions: bases, and flows that are made of a base and a bijector."""

from waveflow.distributions.bases import Base, StandardLogistic, StandardNormal
from waveflow.distributions.flow import Flow

__all__ = ["Base", "Flow", "StandardLogistic", "StandardNormal"]

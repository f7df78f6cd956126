"""Exact-likelihood generative models of audio, images and vectors on one bijector core."""

__version__ = "0.1.0"

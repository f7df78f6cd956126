"""From a teacher that draws slowly to a student that draws in one pass (Parallel WaveNet; arXiv:1711.10433)."""

from waveflow.distillation.contrastive import CONTRASTIVE_WEIGHT, contrastive_kl
from waveflow.distillation.divergence import DivergenceWatch
from waveflow.distillation.per_step import (
    cross_entropy,
    gaussian_entropy,
    gaussian_kl,
    log_scale_penalty,
    logistic_entropy,
)
from waveflow.distillation.reverse_kl import KLEstimate, draw_scored, estimate_kl, reverse_kl
from waveflow.distillation.spectral import multi_resolution_stft, power_loss
from waveflow.distillation.student import Student
from waveflow.distillation.teacher import flow_of, frozen, load_teacher, require_match, require_parallel_density

__all__ = [
    "CONTRASTIVE_WEIGHT",
    "DivergenceWatch",
    "KLEstimate",
    "Student",
    "contrastive_kl",
    "cross_entropy",
    "draw_scored",
    "estimate_kl",
    "flow_of",
    "frozen",
    "gaussian_entropy",
    "gaussian_kl",
    "load_teacher",
    "log_scale_penalty",
    "logistic_entropy",
    "multi_resolution_stft",
    "power_loss",
    "require_match",
    "require_parallel_density",
    "reverse_kl",
]

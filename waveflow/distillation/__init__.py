"""From a teacher that draws slowly to a student that draws in one pass (Parallel WaveNet; arXiv:1711.10433)."""

from waveflow.distillation.annealing import annealed, annealing_weight
from waveflow.distillation.contrastive import CONTRASTIVE_WEIGHT, contrastive_kl
from waveflow.distillation.copies import TeacherCopies, shares_noise
from waveflow.distillation.divergence import DivergenceWatch
from waveflow.distillation.pairs import corresponds, pairs_loss
from waveflow.distillation.per_step import (
    cross_entropy,
    gaussian_entropy,
    gaussian_kl,
    log_scale_penalty,
    logistic_entropy,
)
from waveflow.distillation.reverse_kl import KLEstimate, draw_scored, estimate_kl, reverse_kl
from waveflow.distillation.spectral import multi_resolution_stft, power_loss
from waveflow.distillation.steps import Steps
from waveflow.distillation.student import Student
from waveflow.distillation.student_objective import StudentObjective, TermWeights, VocoderStudent
from waveflow.distillation.teacher import flow_of, frozen, load_teacher, require_match, require_parallel_density
from waveflow.distillation.whispering import periodicity, voice_kept

__all__ = [
    "CONTRASTIVE_WEIGHT",
    "DivergenceWatch",
    "KLEstimate",
    "Steps",
    "Student",
    "StudentObjective",
    "TeacherCopies",
    "TermWeights",
    "VocoderStudent",
    "annealed",
    "annealing_weight",
    "contrastive_kl",
    "corresponds",
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
    "pairs_loss",
    "periodicity",
    "power_loss",
    "require_match",
    "require_parallel_density",
    "reverse_kl",
    "shares_noise",
    "voice_kept",
]

"""One harness for all vocoders: likelihood, copy-synthesis, speed. What recipes and ``waveflow evaluate`` print."""

from waveflow.evaluation.evaluate import evaluate
from waveflow.evaluation.likelihood import Likelihood, dequantize, nats_per_sample
from waveflow.evaluation.report import MEAN_FIGURES, ClipFigures, Report
from waveflow.evaluation.synthesis import Synthesis, Synthesizer, mean_stoi
from waveflow.evaluation.vocoder import Vocoder

__all__ = [
    "MEAN_FIGURES",
    "ClipFigures",
    "Likelihood",
    "Report",
    "Synthesis",
    "Synthesizer",
    "Vocoder",
    "dequantize",
    "evaluate",
    "mean_stoi",
    "nats_per_sample",
]

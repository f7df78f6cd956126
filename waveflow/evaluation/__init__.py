"""One harness for all vocoders: likelihood, copy-synthesis, speed. What recipes and ``waveflow evaluate`` print."""

from waveflow.evaluation.evaluate import evaluate
from waveflow.evaluation.likelihood import Likelihood, dequantize, nats_per_sample
from waveflow.evaluation.report import MEAN_FIGURES, ClipFigures, Report
from waveflow.evaluation.synthesis import Synthesis, Synthesizer, mean_stoi
from waveflow.evaluation.temperature import TEMPERATURES, choose_temperature
from waveflow.evaluation.vocoder import Vocoder
from waveflow.evaluation.yardsticks import YARDSTICKS, yardsticks

__all__ = [
    "MEAN_FIGURES",
    "TEMPERATURES",
    "YARDSTICKS",
    "ClipFigures",
    "Likelihood",
    "Report",
    "Synthesis",
    "Synthesizer",
    "Vocoder",
    "choose_temperature",
    "dequantize",
    "evaluate",
    "mean_stoi",
    "nats_per_sample",
    "yardsticks",
]

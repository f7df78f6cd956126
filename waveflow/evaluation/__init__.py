"""One harness for all vocoders: likelihood, copy-synthesis, speed. What recipes and ``waveflow evaluate`` print."""

from waveflow.evaluation.adjusted import Adjusted, takes
from waveflow.evaluation.comparison import RECORDINGS, Comparison, Contestant, ceiling
from waveflow.evaluation.comparison_page import HeardClip, comparison_page
from waveflow.evaluation.device_name import device_name
from waveflow.evaluation.evaluate import evaluate
from waveflow.evaluation.floor import floor_share
from waveflow.evaluation.likelihood import Likelihood, dequantize, nats_per_sample
from waveflow.evaluation.report import MEAN_FIGURES, ClipFigures, Report
from waveflow.evaluation.synthesis import Synthesis, Synthesizer, mean_stoi, stoi_of
from waveflow.evaluation.temperature import TEMPERATURES, choose_temperature
from waveflow.evaluation.vocoder import Vocoder
from waveflow.evaluation.yardsticks import YARDSTICKS, yardsticks

__all__ = [
    "MEAN_FIGURES",
    "RECORDINGS",
    "TEMPERATURES",
    "YARDSTICKS",
    "Adjusted",
    "ClipFigures",
    "Comparison",
    "Contestant",
    "HeardClip",
    "Likelihood",
    "Report",
    "Synthesis",
    "Synthesizer",
    "Vocoder",
    "ceiling",
    "choose_temperature",
    "comparison_page",
    "dequantize",
    "device_name",
    "evaluate",
    "floor_share",
    "mean_stoi",
    "nats_per_sample",
    "stoi_of",
    "takes",
    "yardsticks",
]

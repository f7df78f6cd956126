"""Everything that can be said of a vocoder by numbers."""

import logging
from collections.abc import Callable, Iterable

from torch import Tensor
from tqdm import tqdm

from waveflow.audio import compare
from waveflow.data import SpeechItem
from waveflow.errors import InputError
from waveflow.evaluation.likelihood import clip_log_prob, is_exact
from waveflow.evaluation.report import ClipFigures, Report
from waveflow.evaluation.synthesis import Synthesizer
from waveflow.evaluation.vocoder import Vocoder
from waveflow.evaluation.yardsticks import clip_yardsticks

logger = logging.getLogger("waveflow")


def evaluate(
    model: Vocoder,
    clips: Iterable[SpeechItem],
    *,
    temperature: float | None = None,
    denoise: float = 0.0,
    seed: int = 0,
    chunk: int | None = None,
    progress: bool = False,
    heard: Callable[[SpeechItem, Tensor], None] | None = None,
) -> Report:
    """Likelihood beside that of classical models, copy-synthesis metrics and speed on whole clips, one at a time.

    Args:
        model: the vocoder; likelihood and synthesis run where it is.
        clips: for instance ``WholeClips``: waveform (T,), clean, and mel (n_mels, frames) each.
        temperature: of the synthesis; None for the model's own.
        denoise: strength of the bias subtraction.
        seed: of the dequantisation noise and of the latents.
        chunk: frames synthesised at a time; None for all at once.
        progress: show a bar, where standard error is a terminal.
        heard: called with every clip and its copy (T,), to keep it.

    A clip too short for the metrics counts for likelihood and speed alone; the log ``waveflow`` names it.

    Raises:
        InputError: for no clips, or options out of range.
        FloatingPointError: naming the clip whose likelihood or synthesis is not finite.
    """
    synthesize = Synthesizer(model, temperature, denoise, seed, chunk)
    rate = model.mel_config.sample_rate
    figures = []
    for index, clip in enumerate(tqdm(clips, "evaluating", unit=" clips", disable=None if progress else True)):
        if index == 0:
            synthesize(clip["mel"][:, :64])  # the first call ever pays for threads, kernels and memory
        waveform = clip["waveform"]
        nats = clip_log_prob(model, clip, index, seed)
        copy = synthesize(clip["mel"])
        if heard is not None:
            heard(clip, copy.waveform)
        figures.append(
            ClipFigures(
                name=clip["name"],
                samples=len(waveform),
                seconds=len(waveform) / rate,
                nats=nats,
                synthesis_seconds=copy.seconds,
                metrics=_compare(clip, copy.waveform, rate),
                yardsticks=clip_yardsticks(clip, index, model.mel_config.hop_length, seed),
            )
        )
    if not figures:
        raise InputError("an evaluation needs at least one clip, got none")
    return Report(figures, is_exact(model))


def _compare(clip: SpeechItem, copy: Tensor, sample_rate: int) -> dict[str, float | None]:
    try:
        return compare(clip["waveform"], copy.clamp(-1, 1), sample_rate)
    except InputError as error:  # a clip too short for a spectrum still has a likelihood
        logger.warning("%s: no metrics: %s", clip["name"], error)
        return {}

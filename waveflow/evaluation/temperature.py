"""The standard deviation of the latent at which a vocoder's copies are closest."""

from collections.abc import Iterable, Sequence

from waveflow.audio.metrics import log_mel_l1
from waveflow.data import SpeechItem
from waveflow.errors import InputError
from waveflow.evaluation.synthesis import Synthesizer
from waveflow.evaluation.vocoder import Vocoder

TEMPERATURES = (0.6, 0.7, 0.8, 0.9, 1.0)


def choose_temperature(
    model: Vocoder, clips: Iterable[SpeechItem], temperatures: Sequence[float] = TEMPERATURES, seed: int = 0
) -> float:
    """The temperature whose copies have the least mean log-mel L1 distance (:func:`log_mel_l1`) to the clips.

    A flow that fits perfectly wants 1; one that does not, less: what it has not learnt comes out as noise.

    Args:
        model: the vocoder.
        clips: some that it was trained on, so that the held-out ones stay untouched: waveform (T,) and mel each.
        temperatures: to choose from.
        seed: of the latents, the same for all temperatures.

    Raises:
        InputError: for no clips or no temperatures.
        FloatingPointError: if a synthesis is not finite.
    """
    clips = list(clips)
    if not clips or not temperatures:
        raise InputError("choosing a temperature needs at least one clip and one temperature")

    def distance(temperature: float) -> float:
        copies = Synthesizer(model, temperature, seed=seed)
        rate = model.mel_config.sample_rate
        return sum(log_mel_l1(clip["waveform"], copies(clip["mel"]).waveform, rate) for clip in clips)

    return min(temperatures, key=distance)

"""The choice of a default temperature."""

import pytest
import torch

from waveflow.audio import MelConfig, MelSpectrogram
from waveflow.errors import InputError
from waveflow.evaluation import choose_temperature


class Amplifier:
    """A vocoder of noise with the level that its best temperature makes right."""

    def __init__(self, best):
        self.best, self.mel_config = best, MelConfig()

    def vocode(self, mel, temperature=None, *, generator=None, chunk=None):
        noise = torch.randn(1, mel.shape[2] * 256, generator=generator)
        return 0.1 * noise * temperature / self.best


def clip(seed):
    waveform = 0.1 * torch.randn(20 * 256, generator=torch.Generator().manual_seed(seed))
    return {"waveform": waveform, "mel": MelSpectrogram(MelConfig())(waveform[None])[0, :, :20], "name": str(seed)}


@pytest.mark.parametrize("best", [0.6, 0.8, 1.0])
def test_finds_the_level_of_the_clips(best):
    assert choose_temperature(Amplifier(best), [clip(1), clip(2)]) == best


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(InputError, match="at least one clip"):
        choose_temperature(Amplifier(1.0), [])
    with pytest.raises(InputError, match="one temperature"):
        choose_temperature(Amplifier(1.0), [clip(1)], [])

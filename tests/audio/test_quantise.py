"""Waveforms as whole numbers against torchaudio, and their cells against what they hold."""

import pytest
import torch
import torchaudio.functional as AF

from waveflow.audio.quantise import EvenSteps, MuLaw
from waveflow.errors import InputError

QUANTISERS = {"even, 5": EvenSteps(5), "even, 65536": EvenSteps(), "mu-law, 256": MuLaw(), "mu-law, 7": MuLaw(7)}


@pytest.mark.parametrize("name", QUANTISERS)
def test_cells_come_back_and_fill_the_range(name):
    quantiser = QUANTISERS[name]
    codes = torch.arange(quantiser.values)
    samples = quantiser.decode(codes)
    assert samples.dtype == torch.float32 and samples[0] == -1 and samples[-1] == 1
    assert torch.equal(quantiser.encode(samples), codes)
    assert samples.diff().min() > 0
    torch.testing.assert_close(quantiser.log_width(codes.double()).exp().sum(), torch.tensor(2.0).double())


@pytest.mark.parametrize("name", QUANTISERS)
def test_widths_are_those_of_the_cells(name):
    quantiser = QUANTISERS[name]
    places = torch.linspace(-1, 1, 1_000_001, dtype=torch.float64)
    cells = quantiser.encode(places)
    share = torch.bincount(cells, minlength=quantiser.values) * (2 / 1_000_001)
    width = quantiser.log_width(torch.arange(quantiser.values).double()).exp()
    assert (share - width).abs().max() < 5e-6
    assert (cells.diff() >= 0).all()


def test_mu_law_equals_torchaudio():
    waveform = torch.linspace(-1, 1, 10_001, dtype=torch.float64)
    codes = MuLaw().encode(waveform)
    assert (codes != AF.mu_law_encoding(waveform, 256)).sum() <= 1
    torch.testing.assert_close(
        MuLaw().decode(codes.double()), AF.mu_law_decoding(codes, 256).double(), rtol=1e-5, atol=1e-6
    )


def test_even_steps_keep_16_bit_sound_apart():
    sound = torch.arange(-32768, 32768) / 32768
    codes = EvenSteps().encode(sound)
    assert codes.diff().min() >= 0 and (EvenSteps().decode(codes) - sound).abs().max() <= 1.6e-5


def test_beyond_the_range_counts_to_the_outermost():
    for quantiser in QUANTISERS.values():
        assert quantiser.encode(torch.tensor([-3.0, 1.5])).tolist() == [0, quantiser.values - 1]


def test_too_few_values_are_refused():
    for kind in (EvenSteps, MuLaw):
        with pytest.raises(InputError, match=f"{kind.__name__} expects at least 2 values, got 1"):
            kind(1)

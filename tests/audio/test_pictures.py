"""Pictures: right size, right place of what is drawn, no trace left in matplotlib."""

import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import torch

from waveflow.audio import MelConfig, mel_image, mel_picture
from waveflow.audio.pictures import _draw
from waveflow.errors import InputError

CONFIG = MelConfig()
QUIET = torch.full((80, 100), -11.0)


def test_a_picture_is_a_png_of_the_pixels_of_the_image(tmp_path):
    panels = [("real", QUIET + torch.rand(80, 100)), ("generated", np.zeros((1, 80, 90)))]
    mel_picture(tmp_path / "a.png", panels, CONFIG)
    mel_picture(tmp_path / "b.png", panels, CONFIG)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n")
    image = mel_image(panels, CONFIG)
    assert image.shape == (500, 1000, 3) and image.dtype == np.uint8
    pixels = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    np.testing.assert_allclose(pixels, image / 255, atol=1 / 255)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("panel", [0, 1])
def test_a_loud_spot_is_drawn_in_its_place(panel):
    mels = [QUIET.clone(), QUIET.clone()]
    mels[0][0, 0] = 0.0  # sets the range
    before = mel_image([("a", mels[0]), ("b", mels[1])], CONFIG).astype(int)
    mels[panel][60:70, 20:30] = 0.0
    after = mel_image([("a", mels[0]), ("b", mels[1])], CONFIG)
    rows, columns, _ = np.nonzero(np.abs(before - after).max(2, keepdims=True) > 100)
    assert (rows.mean() > 250) == (panel == 1)
    height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
    # frames 20 to 29 of 100 and bands 60 to 69 of 80: the upper left, a tenth of the width and an eighth of the height
    assert columns.max() < 400 and rows.mean() - 250 * panel < 125
    assert 75 < width < 95 and 20 < height < 28


def test_axes_are_seconds_and_hertz():
    figure = _draw([("a", QUIET), ("b", QUIET)], CONFIG).figure
    upper, lower, _ = figure.axes
    assert upper.get_xlim() == lower.get_xlim() == (0, 100 * 256 / 22050)
    assert (lower.get_xlabel(), lower.get_ylabel()) == ("seconds", "Hz")
    ticks = dict(zip((label.get_text() for label in lower.get_yticklabels()), lower.get_yticks(), strict=True))
    # Slaney's scale, 81 steps over 0 to 15 + 27 ln(8) / ln(6.4) mel; 1000 Hz is mel 15, band 0 is one step up
    assert ticks["1000"] == pytest.approx(15 / ((15 + 27 * np.log(8) / np.log(6.4)) / 81) - 1, abs=0.02)


def test_all_panels_share_the_range_of_the_first():
    alone = mel_image([("a", QUIET + torch.rand(80, 100))], CONFIG)
    assert alone.shape == (280, 1000, 3)
    first = mel_image([("a", QUIET), ("b", QUIET)], CONFIG)
    louder = mel_image([("a", QUIET), ("b", QUIET + 20)], CONFIG)
    assert np.array_equal(first[:230], louder[:230])


def test_nan_is_drawn_and_wrong_bands_refused():
    mel_image([("a", QUIET * float("nan")), ("b", QUIET)], CONFIG)
    with pytest.raises(InputError, match=r"\(80, frames\), got \(100, 80\) for a"):
        mel_image([("a", QUIET.mT)], CONFIG)
    with pytest.raises(InputError, match="at least one"):
        mel_image([], CONFIG)


def test_pyplot_is_never_loaded_and_matplotlib_only_to_draw():
    code = """if True:
        import sys, torch, waveflow.audio as audio
        assert not {"matplotlib", "pystoi", "numba"} & set(sys.modules)
        audio.mel_image([("a", torch.zeros(80, 3))], audio.MelConfig())
        assert "matplotlib.pyplot" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True)

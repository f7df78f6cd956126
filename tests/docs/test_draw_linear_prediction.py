"""The script that draws the pictures of docs/linear-prediction.md."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from waveflow.audio import write_audio
from waveflow.cli import run_command

SCRIPT = Path(__file__).parents[2] / "docs" / "draw_linear_prediction.py"


@pytest.fixture(scope="module")
def drawing():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draw(module, *words) -> int:
    return run_command(lambda: module.main([str(word) for word in words]), SCRIPT.name)


def test_draws_the_pictures_of_the_page(drawing, tmp_path, capsys):
    assert draw(drawing, "--order", 8, "--out", tmp_path / "new") == 0
    pictures = sorted((tmp_path / "new").iterdir())
    assert [path.stem for path in pictures] == [f"linear-prediction-{n}" for n in ("envelope", "residual", "whiteness")]
    assert all(imread(path).std() > 0.05 for path in pictures)
    assert "residual variance" in capsys.readouterr().out


def test_a_clip_shorter_than_a_second_will_do(drawing, tmp_path):
    for name in ("a", "b"):
        write_audio(tmp_path / f"{name}.wav", 0.1 * torch.randn(1100), 22050)
    assert draw(drawing, "--data", tmp_path, "--clip", "a", "--order", 4, "--out", tmp_path) == 0


def test_the_all_pole_fit_of_an_all_pole_spectrum_is_that_spectrum(drawing):
    frequencies = np.linspace(0, np.pi, 513)
    power = 0.3 / np.abs(1 - 0.9 * np.exp(-1j * frequencies) + 0.5 * np.exp(-2j * frequencies)) ** 2
    fit = drawing.all_pole(torch.from_numpy(np.log(power))[None, :, None], order=6)
    np.testing.assert_allclose(fit, power, rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--order", 0), "--order expects 1 to 512, got 0"),
        (("--clip", "none"), "--clip expects the name of a clip in"),
        (("--data", "nowhere"), "expected a folder of audio at nowhere, got nothing there"),
    ],
)
def test_refuses_bad_input_in_one_line(drawing, words, complaint, tmp_path, capsys):
    assert draw(drawing, "--out", tmp_path / "new", *words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"draw_linear_prediction.py: error: {complaint}") and said.count("\n") == 1
    assert not (tmp_path / "new").exists()

"""The script that draws the picture of docs/masked-convolutions.md."""

import importlib.util
from pathlib import Path

import pytest
from matplotlib.image import imread

from waveflow.cli import run_command

SCRIPT = Path(__file__).parents[2] / "docs" / "draw_receptive_fields.py"


@pytest.fixture(scope="module")
def drawing():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draw(module, *words) -> int:
    return run_command(lambda: module.main([str(word) for word in words]), SCRIPT.name)


def test_draws_the_picture_and_counts_what_is_blind(drawing, tmp_path, capsys):
    words = ("--size", 7, "--layers", 4, "--first-kernel", 3, "--out", tmp_path / "new")
    assert draw(drawing, *words) == 0
    assert imread(tmp_path / "new" / "receptive-fields.png").std() > 0.05
    # From (4, 3), d rows above, d columns to the right are in reach: not 5 and 6 of row 3, nor 6 of row 2.
    assert "PixelCNN 3, Gated PixelCNN 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--size", 6), "--size expects an odd number from 5, got 6"),
        (("--layers", -1), "--layers expects at least 0, got -1"),
        (("--first-kernel", 4), "--first-kernel expects an odd number from 3, got 4"),
    ],
)
def test_refuses_bad_input_in_one_line(drawing, words, complaint, tmp_path, capsys):
    assert draw(drawing, "--out", tmp_path / "new", *words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"draw_receptive_fields.py: error: {complaint}") and said.count("\n") == 1
    assert not (tmp_path / "new").exists()

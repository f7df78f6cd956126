"""The sampling recipes as their users run them, small."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from waveflow.cli import run_command

RECIPES = Path(__file__).parents[2] / "recipes" / "sampling"
SMALL = ["--chains", "4", "--draws", "8", "--warmup", "2", "--layers", "2", "--hidden", "4", "--fit-steps", "3"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows", "written"),
    [
        ("two_modes.py", 7, {"table.md", "draws.png", "traces.png"}),
        ("logistic_regression.py", 8, {"table.md", "traces.png"}),
    ],
)
def test_what_a_recipe_leaves(name, rows, written, tmp_path):
    words = [sys.executable, RECIPES / name, *SMALL, "--out", tmp_path / "new" / "run"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "new" / "run").iterdir()} == written
    table = (tmp_path / "new" / "run" / "table.md").read_text().splitlines()
    assert len(table) == rows + 2 and table[0].startswith("| method | accepted | R-hat | ESS |")
    assert all(line.count("|") == table[0].count("|") for line in table)
    assert table[2] in done.stdout


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("two_modes.py", ["--rounds", 0], "--rounds expects at least 1, got 0"),
        ("two_modes.py", ["--chains", 1], "--chains expects at least 2, got 1"),
        ("two_modes.py", ["--threads", 0], "--threads expects at least 1, got 0"),
        ("two_modes.py", ["--seed", 2**63], f"--seed expects a whole number from 0 to 2^63 - 1, got {2**63}"),
        ("logistic_regression.py", ["--prior-std", 0], "--prior-std expects a positive number, got 0.0"),
        ("logistic_regression.py", ["--out", __file__], f"{__file__}: File exists"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(name, words, message, monkeypatch, capsys):
    monkeypatch.syspath_prepend(RECIPES)
    recipe = importlib.import_module(name.removesuffix(".py"))
    assert run_command(lambda: recipe.main([str(word) for word in words]), name) == 2
    assert capsys.readouterr().err.splitlines() == [f"{name}: error: {message}"]

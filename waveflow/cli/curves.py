"""``waveflow curves``: how several trainings went, in one picture and one table."""

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waveflow.atomic import write_whole
from waveflow.errors import InputError
from waveflow.training.curve import Curve, Line, draw_lines, lines_table, read_curve

_UNITS = {"negative_log_likelihood": "nats an image", "bits_per_dim": "bits/dim", "nats_per_sample": "nats per sample"}
_MORE_IS_BETTER = ("nats_per_sample", "stoi")


@dataclass(frozen=True)
class _Run:
    name: str
    curve: Curve
    minutes: Mapping[int, float]
    clock: str | None
    test: Mapping[str, Any]


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "curves",
        help="the training curves of several runs in one picture",
        description="Draw the validation figures of runs against time into one picture, with their numbers as CSV "
        "beside it, and print what each run reached. Runs that are still going can be looked at, too.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or NAME=FOLDER to call it by a name")
    parser.add_argument("--out", required=True, metavar="FILE", help="picture to write, .png; a .csv is put beside it")
    parser.add_argument(
        "--figure",
        metavar="NAME",
        help="which figure of validation (default: the likelihood, in nats an image, bits_per_dim or nats_per_sample)",
    )
    parser.add_argument(
        "--against",
        choices=("minutes", "steps"),
        help="what the curves run over (default: minutes, where every run has counted them)",
    )
    parser.add_argument(
        "--level", action="append", default=[], metavar="NAME=VALUE", help="a dashed line, such as 'published=1.05'"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read, draw, print.

    Raises:
        InputError: for folders that hold no run, a figure that not all of them have, or any other wrong option.
        OSError: if picture or table cannot be written.
    """
    picture = Path(options.out)
    if picture.suffix.lower() != ".png":
        raise InputError(f"--out {options.out}: expected a file ending in .png")
    if not picture.absolute().parent.is_dir():
        raise InputError(f"--out {options.out}: there is no folder {picture.absolute().parent}")
    levels = {name: _number(word, value) for word in options.level for name, value in [_named(word, "--level")]}
    folders = _name_runs(options.runs)
    figure = options.figure or _common_figure(folders)
    runs = [_read(name, folder, figure) for name, folder in folders.items()]
    timed = all(run.clock is not None for run in runs)
    if options.against == "minutes" and not timed:
        without = ", ".join(run.name for run in runs if run.clock is None)
        raise InputError(f"--against minutes: no minutes were counted in {without}; use --against steps")
    against = options.against or ("minutes" if timed else "steps")
    lines = [
        Line(run.name, run.curve, run.minutes if against == "minutes" else {step: step for step in run.curve})
        for run in runs
    ]
    clocks = dict.fromkeys(run.clock for run in runs)
    x_label = f"{' / '.join(clocks)} of training" if against == "minutes" else "step"
    write_whole(picture.with_suffix(".csv"), lines_table(lines, x_label, figure))
    draw_lines(picture, lines, x_label, _UNITS.get(figure, figure), levels)
    print(_summary(runs, figure))
    print(f"{options.out}: validation {figure} against {against}")


def _named(word: str, option: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise InputError(f"{option} expects NAME=VALUE, got {word!r}")
    return name, value


def _number(word: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"--level expects NAME=VALUE with a finite number, got {word!r}")
    return number


def _name_runs(words: Sequence[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for word in words:
        name, folder = (os.path.basename(os.path.normpath(word)), word)
        if "=" in word and not Path(word).is_dir():
            name, folder = _named(word, "RUN")
        if name in folders:
            raise InputError(f"two runs are called {name!r}: give one another name, as in another={folder}")
        if not (Path(folder) / "logs" / "metrics.csv").is_file():
            raise InputError(f"{folder}: holds no run, there is no logs/metrics.csv in it")
        folders[name] = Path(folder)
    return folders


def _common_figure(folders: Mapping[str, Path]) -> str:
    for figure in _UNITS:
        if all(_validations(folder, figure) for folder in folders.values()):
            return figure
    raise InputError(f"these runs have none of {', '.join(_UNITS)} in common: choose a --figure of theirs")


def _validations(folder: Path, figure: str) -> Curve:
    metrics = folder / "logs" / "metrics.csv"
    try:
        return read_curve(metrics, f"validate/{figure}")
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{metrics}: expected lines of step, name and value") from None


def _read(name: str, folder: Path, figure: str) -> _Run:
    curve = _validations(folder, figure)
    if not curve:
        raise InputError(f"{folder}: there is no validation of {figure!r} in logs/metrics.csv")
    minutes, test = (_read_json(folder / "logs" / f"{name}.json") for name in ("minutes", "test"))
    at = {0: 0.0} | {int(step): value for step, value in minutes.get("at", {}).items()}
    return _Run(name, curve, at, minutes.get("unit"), test)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes()) if path.exists() else {}
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, the file is damaged")
    return content


def _summary(runs: Sequence[_Run], figure: str) -> str:
    """A Markdown table, a line for each run."""
    unit = _UNITS.get(figure, figure)
    rows = [f"| run | steps | minutes | best validation, {unit} | at step | test |", "| --- " * 6 + "|"]
    for run in runs:
        last = max(run.curve)
        finite = {step: value for step, value in run.curve.items() if math.isfinite(value)} or run.curve
        best = (max if figure in _MORE_IS_BETTER else min)(finite, key=finite.get)
        minutes = f"{run.minutes[last]:.1f}" if run.clock and last in run.minutes else ""
        cells = [run.name, f"{last:,}", minutes, f"{run.curve[best]:.4g}", f"{best:,}", _tested(run.test, figure)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _tested(test: Mapping[str, Any], figure: str) -> str:
    # The names that the report of a run of images has for them.
    name, error = {
        "bits_per_dim": ("bits_per_dim", "standard_error"),
        "negative_log_likelihood": ("negative_log_likelihood_nats", "negative_log_likelihood_standard_error"),
    }.get(figure, (figure, None))
    if test.get(name) is None:
        return ""
    margin = "" if test.get(error) is None else f" ± {test[error]:.2g}"
    step = f" (step {test['tested_step']:,})" if "tested_step" in test else ""
    return f"{test[name]:.4g}{margin}{step}"

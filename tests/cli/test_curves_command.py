"""``waveflow curves``: the numbers of each run, drawn and told."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from waveflow.cli import main as waveflow


@pytest.fixture
def make(tmp_path):
    def make(name, curve, minutes=None, figure="bits_per_dim", test=None):
        logs = tmp_path / name / "logs"
        logs.mkdir(parents=True)
        rows = [f"{step},validate/{figure},{value}" for step, value in curve.items()]
        (logs / "metrics.csv").write_text("\n".join(["step,name,value", "5,train/loss,9.0", *rows]) + "\n")
        if minutes is not None:
            at = {str(step): value for step, value in minutes.items()}
            (logs / "minutes.json").write_text(json.dumps({"unit": "CPU minutes", "total": 9.0, "at": at}))
        if test is not None:
            (logs / "test.json").write_text(json.dumps(test))
        return str(tmp_path / name)

    return make


def test_curves_against_minutes(make, tmp_path, capsys):
    test = {"bits_per_dim": 2.25, "standard_error": 0.0123, "tested_step": 20}
    first = make("glow", {0: 8.0, 10: 3.0, 20: 2.5, 30: 2.75}, {10: 0.5, 20: 1.25, 30: 2.0}, test=test)
    second = make("other", {0: 8.0, 10: 4.0}, {10: 0.25})
    out = tmp_path / "curves.png"
    assert waveflow(["curves", first, f"RealNVP={second}", "--out", str(out), "--level", "published=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == [
        "| glow | 30 | 2.0 | 2.5 | 20 | 2.25 ± 0.012 (step 20) |",
        "| RealNVP | 10 | 0.2 | 4 | 10 |  |",
    ]
    assert lines[4] == f"{out}: validation bits_per_dim against minutes"
    with open(tmp_path / "curves.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["run", "step", "CPU minutes of training", "bits_per_dim"]
    assert rows[:3] == [["glow", "0", "0", "8"], ["glow", "10", "0.5", "3"], ["glow", "20", "1.25", "2.5"]]
    assert [row[0] for row in rows] == ["glow"] * 4 + ["RealNVP"] * 2
    whole = np.asarray(Image.open(out))
    assert waveflow(["curves", first, f"RealNVP={second}", "--out", str(out)]) == 0
    assert not np.array_equal(whole, np.asarray(Image.open(out)))


def test_what_all_runs_have_is_drawn(make, tmp_path, capsys):
    speech = make("wavenet", {0: "nan", 5: "inf", 10: 5.0, 20: 4.9}, figure="nats_per_sample")
    assert waveflow(["curves", speech, "--out", str(tmp_path / "a.png")]) == 0
    out = capsys.readouterr().out
    assert "| wavenet | 20 |  | 5 | 10 |  |" in out and "nats_per_sample against steps" in out
    both = make("binary", {10: 0.17}, {10: 1.0})
    metrics = tmp_path / "binary" / "logs" / "metrics.csv"
    metrics.write_text(metrics.read_text() + "10,validate/negative_log_likelihood,91.5\n")
    assert waveflow(["curves", both, "--out", str(tmp_path / "b.png")]) == 0
    assert "| binary | 10 | 1.0 | 91.5 | 10 |  |" in capsys.readouterr().out
    assert (
        waveflow(["curves", both, "--figure", "bits_per_dim", "--against", "steps", "--out", str(tmp_path / "b.png")])
        == 0
    )
    assert "| binary | 10 | 1.0 | 0.17 | 10 |  |" in capsys.readouterr().out
    assert (tmp_path / "b.csv").read_text() == "run,step,step,bits_per_dim\nbinary,10,10,0.17\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: holds no run, there is no logs/metrics.csv in it"),
        (["{glow}", "{glow}"], "two runs are called 'glow': give one another name, as in another="),
        (["{glow}", "{speech}"], "have none of negative_log_likelihood, bits_per_dim, nats_per_sample in common"),
        (["{glow}", "--figure", "stoi"], "there is no validation of 'stoi' in logs/metrics.csv"),
        (
            ["{speech}", "--against", "minutes"],
            "--against minutes: no minutes were counted in speech; use --against steps",
        ),
        (["{glow}", "--level", "1.06"], "--level expects NAME=VALUE, got '1.06'"),
        (["{glow}", "--level", "a=low"], "--level expects NAME=VALUE with a finite number, got 'a=low'"),
        (["{glow}", "--out", "a.jpg"], "--out a.jpg: expected a file ending in .png"),
        (["{glow}", "--out", "no/where.png"], "--out no/where.png: there is no folder "),
        (["{damaged}"], "metrics.csv: expected lines of step, name and value"),
        (["{unclear}"], "minutes.json: expected a JSON object, the file is damaged"),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_bad_input_is_one_line(words, message, make, tmp_path, capsys):
    folders = {
        "glow": make("glow", {10: 3.0}, {10: 0.5}),
        "speech": make("speech", {10: 5.0}, figure="nats_per_sample"),
        "damaged": make("damaged", {10: "three"}),
        "unclear": make("unclear", {10: 3.0}, {10: 0.5}),
    }
    (tmp_path / "unclear" / "logs" / "minutes.json").write_text("{")
    out = [] if "--out" in words else ["--out", str(tmp_path / "c.png")]
    assert waveflow(["curves", *(word.format(**folders) for word in words), *out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "c.png").exists() and not (tmp_path / "c.csv").exists()

"""The picture of a training curve."""

import math

import numpy as np
from PIL import Image

from waveflow.training.curve import curve_table, draw_curve, read_curve


def test_reads_one_figure_of_many(tmp_path):
    rows = "step,name,value\n0,validate/bits_per_dim,8.5\n10,train/bits_per_dim,7.25\n10,validate/bits_per_dim,inf\n"
    (tmp_path / "metrics.csv").write_text(rows)
    assert read_curve(tmp_path / "metrics.csv", "validate/bits_per_dim") == {0: 8.5, 10: math.inf}


def test_draws_whatever_there_is(tmp_path):
    curves = {
        "whole": ({10: 3.0, 20: 2.5}, {0: 8.0, 10: 3.1, 20: 2.6}, {0: 0.0, 10: 0.5, 20: 1.0}),
        "no times": ({10: 3.0, 20: 2.5}, {0: 8.0, 10: 3.1, 20: 2.6}, {}),
        "not finite": ({10: math.nan}, {0: 8.0, 10: math.inf}, {0: 0.0, 10: 0.5}),
        "one point": ({}, {0: 8.0, 4: 7.0}, {0: 0.0}),
        "beginning": ({}, {0: 8.0}, {0: 0.0}),
    }
    pictures = {}
    for name, (train, validation, minutes) in curves.items():
        draw_curve(tmp_path / f"{name}.png", train, validation, minutes, "CPU minutes")
        pictures[name] = np.asarray(Image.open(tmp_path / f"{name}.png"))
    assert not np.array_equal(pictures["whole"], pictures["no times"])
    draw_curve(tmp_path / "again.png", *curves["whole"], "CPU minutes")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "whole.png").read_bytes()


def test_the_table_has_a_line_for_each_validation():
    train, validation = {10: 3.0, 20: 2.0, 30: 1.0}, {0: 8.0, 20: 2.6, 30: 2.5}
    table = curve_table(train, validation, {}, {0: 0.0, 20: 1.25}, "CPU minutes").decode()
    assert table == "step,CPU minutes,validation,training\n0,0,8,\n20,1.25,2.6,2.5\n30,,2.5,1\n"
    table = curve_table(train, validation, {20: 91.5}, {}, "minutes").decode()
    assert table.splitlines()[::2] == ['step,minutes,validation,training,"validation, nats"', "20,,2.6,2.5,91.5"]

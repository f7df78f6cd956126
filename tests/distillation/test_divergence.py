"""When a student is given up."""

import pytest

from waveflow.distillation import DivergenceWatch
from waveflow.errors import InputError


def test_stops_after_many_steps_far_above_the_lowest():
    watch = DivergenceWatch("runs/here", margin=2.0, patience=3)
    for kl in (100.0, 50.0, 1.0, 3.5, 3.5, 2.9, 3.5, 3.5):
        watch(kl)
    with pytest.raises(
        InputError, match=r"3 steps in a row .* 2 nats .* lowest, 1 \(now 1e\+09\).* runs/here is intact"
    ):
        watch(1e9)


def test_a_bad_start_is_not_a_divergence():
    watch = DivergenceWatch("runs/here", patience=2)
    for kl in (1e6, 1e6, 1e6, 1e5, 10.0, 10.0):
        watch(kl)


def test_steps_that_are_not_finite_are_the_trainers():
    watch = DivergenceWatch("runs/here", patience=1)
    watch(0.0)
    watch(float("nan"))


def test_what_diverges_is_not_saved():
    watch = DivergenceWatch("runs/here", patience=20, save_every=10)
    for step, kl in enumerate([1.0] * 8 + [9.0]):
        watch(kl, step)
    with pytest.raises(InputError, match="for 2 steps in a row"):
        watch(9.0, 9)


def test_one_bad_step_before_a_save_is_forgiven():
    watch = DivergenceWatch("runs/here", patience=20, save_every=10)
    for step, kl in enumerate([1.0] * 9 + [9.0] + [1.0] * 8 + [1.0, 9.0]):
        watch(kl, step)

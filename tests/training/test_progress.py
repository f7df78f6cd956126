import io

import pytest

from waveflow.training import progress
from waveflow.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def advance(shown, steps):
    for _ in range(steps):
        shown.advance({"nats": 1.23456})
    shown.close()


def test_bar_on_a_terminal():
    stream = Terminal()
    shown = Progress(10, start=4, stream=stream)
    shown.say("hello")
    advance(shown, 6)
    assert "hello\n" in stream.getvalue()
    assert "10/10" in stream.getvalue() and "nats=1.235" in stream.getvalue()


def test_now_and_then_a_line_elsewhere(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    advance(Progress(200, stream=stream), 200)
    lines = stream.getvalue().splitlines()
    assert 3 < len(lines) < 12
    assert lines[-1].startswith("step 200/200  nats 1.235") and "left" in lines[0]


def test_last_step_is_always_told():
    stream = io.StringIO()
    advance(Progress(3, stream=stream), 3)
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_is_silent(stream):
    shown = Progress(3, quiet=True, stream=stream)
    shown.say("hello")
    advance(shown, 3)
    assert stream.getvalue() == ""

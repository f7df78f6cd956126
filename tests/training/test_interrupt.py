import signal
import threading
import weakref

import pytest

from waveflow.training.interrupt import Interrupted, InterruptWatch


def test_first_signal_is_noted_and_said(capfd):
    with InterruptWatch("stopping") as watch:
        assert watch.signum == 0
        signal.raise_signal(signal.SIGTERM)
        assert watch.signum == signal.SIGTERM
    assert "stopping" in capfd.readouterr().err


def test_second_interrupt_from_the_keyboard_is_obeyed(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with InterruptWatch():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_signals_that_torchrun_repeats_are_not(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with InterruptWatch() as watch:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(signum)
        assert watch.signum == signal.SIGTERM


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError), InterruptWatch():
        raise ValueError
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_abandonable_call_gives_its_result_or_none():
    reached = []

    def interrupted():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:
            pytest.fail("user code caught it")
        reached.append("never")

    with InterruptWatch() as watch:
        assert watch.abandonable(lambda: 3) == 3
        assert watch.abandonable(interrupted) is None
        assert watch.abandonable(lambda: reached.append("never")) is None
    assert not reached


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_wish_that_python_lost_is_heeded_later():
    reached = []

    def deaf():
        mortal = InterruptWatch()
        watcher = weakref.ref(mortal, lambda _: signal.raise_signal(signal.SIGTERM))
        del mortal
        reached.append(watcher() is None)
        watch.heed()
        reached.append("never")

    with InterruptWatch() as watch:
        watch.heed()
        assert watch.abandonable(deaf) is None and watch.signum == signal.SIGTERM
        watch.heed()  # nothing is left to abandon
    assert reached == [True]


def test_works_outside_the_main_thread():
    def work():
        with InterruptWatch() as watch:
            results.append(watch.signum)

    results = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [0]


def test_interrupted_is_a_system_exit_with_the_shells_code():
    assert (Interrupted(signal.SIGINT).code, Interrupted(signal.SIGTERM).code) == (130, 143)
    assert issubclass(Interrupted, SystemExit)

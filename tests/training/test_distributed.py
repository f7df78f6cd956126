"""Two processes under torchrun against one with twice the batch."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from regression import Points, careless_validation, exported, metrics, train

SETTINGS = {"precision": "64-true", "log_every": 1, "validate_every": 2, "clip_norm": 0.5, "ema_decay": 0.9}
BAD_STEPS = [3]


def torchrun(settings):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = Path(__file__).with_name("regression.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, script, json.dumps(settings)], env=environment, capture_output=True, text=True, timeout=120
    )


def test_two_ranks_equal_one_process_with_twice_the_batch(tmp_path):
    """The NaN is in the last rank's share only: both ranks have to skip that step."""
    pair = torchrun(SETTINGS | {"out": str(tmp_path / "pair"), "steps": 6, "bad_steps": BAD_STEPS})
    assert pair.returncode == 0, pair.stderr
    state, _, _ = train(
        tmp_path / "one", batches=Points(4, BAD_STEPS), steps=6, validate=careless_validation, **SETTINGS
    )
    assert state.skipped == 1
    ours, theirs = metrics(tmp_path / "one"), metrics(tmp_path / "pair")
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    names = {name for _, name, _ in ours}
    assert {"train/loss", "train/gradient_norm", "validate/error"} <= names
    # The largest error of a batch is no mean over ranks; everything else is.
    for (_, name, a), (_, _, b) in zip(ours, theirs, strict=True):
        assert name == "train/largest" or a == pytest.approx(b, rel=1e-12)
    for name, weight in exported(tmp_path / "one").items():
        torch.testing.assert_close(weight, exported(tmp_path / "pair")[name], rtol=1e-12, atol=1e-13)
    assert pair.stderr.count("training 21 parameters") == 1


@pytest.mark.slow
def test_signal_to_the_last_rank_stops_both_and_the_run_can_be_resumed(tmp_path):
    settings = SETTINGS | {"out": str(tmp_path / "run"), "steps": 8}
    stopped = torchrun(settings | {"killed_at": 3})
    assert stopped.returncode != 0
    assert "stopped by SIGTERM after step 3 of 8" in stopped.stderr
    again = torchrun(settings | {"resume": True, "bad_steps": []})
    assert again.returncode == 0, again.stderr
    assert metrics(tmp_path / "run")[-1][0] == 8


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_exit_code_of_an_interrupted_script(tmp_path, signum):
    script = Path(__file__).with_name("regression.py")
    settings = {"out": str(tmp_path / "run"), "steps": 8, "killed_at": 3, "signum": int(signum)}
    stopped = subprocess.run(
        [sys.executable, script, json.dumps(settings)], capture_output=True, text=True, timeout=120
    )
    assert stopped.returncode == 128 + signum
    assert "continue with --resume" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert (tmp_path / "run" / "checkpoints" / "step-00000003.safetensors").exists()

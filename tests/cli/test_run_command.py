"""How commands and recipes end."""

import errno
import subprocess
import sys

import pytest
import torch

from waveflow.cli import run_command
from waveflow.errors import InputError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a thing is wrong"), "a thing is wrong"),
        (InputError("over\n  two lines"), "over two lines"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.wav"), "x.wav: No such file or directory"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("could not save"), "could not save"),
        (FloatingPointError("not finite"), "not finite"),
    ],
)
def test_what_a_user_can_mend_is_one_line(capsys, error, line):
    def call():
        raise error

    assert run_command(call, "program") == 2
    assert capsys.readouterr().err == f"program: error: {line}\n"


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_too_little_memory_comes_with_advice(capsys, error):
    def call():
        raise error

    assert run_command(call) == 2
    assert "smaller batches" in capsys.readouterr().err


def test_a_defect_of_ours_keeps_its_traceback():
    def call():
        raise KeyError("oops")

    with pytest.raises(KeyError):
        run_command(call)


def test_ctrl_c_is_130(capsys):
    def call():
        raise KeyboardInterrupt

    assert run_command(call, "program") == 130
    assert capsys.readouterr().err == "\nprogram: interrupted\n"


def test_a_reader_that_leaves_is_no_error():
    program = (
        "import sys; from waveflow.cli import run_command\n"
        "sys.exit(run_command(lambda: [print('line ' * 100, flush=True) for _ in range(10000)]))"
    )
    command = f'{sys.executable} -c "{program}" | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "line " * 100 + "\n")

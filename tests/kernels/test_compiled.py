"""What is kept on disk is compiled anew when any file changes that it may be made of."""

import os
from pathlib import Path

import waveflow.kernels.compiled as module
from waveflow.kernels.compiled import compiled


def twice(x):
    return 2 * x


def test_it_computes():
    assert compiled(twice)(21) == 42


def test_a_changed_neighbour_outdates_what_is_kept(tmp_path, monkeypatch):
    for name in ("compiled.py", "neighbour.py"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "compiled.py"))

    def stamp():
        return compiled(twice)._cache._cache_file._source_stamp

    before = stamp()
    assert stamp() == before
    os.utime(Path(tmp_path, "neighbour.py"), ns=(1, 1))
    assert stamp() != before

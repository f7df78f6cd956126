"""Folders that appear whole or not at all."""

import pytest

from waveflow.errors import InputError
from waveflow.training.staged_folder import staged_folder


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_it_appears_when_it_is_whole(tmp_path):
    with staged_folder(tmp_path / "a" / "model") as staged:
        (staged / "card").write_text("first")
        assert not (tmp_path / "a" / "model").exists()
    assert content(tmp_path) == {"a/model/card": "first"}
    with staged_folder(tmp_path / "a" / "model", replace=True) as staged:
        (staged / "other").write_text("second")
        assert content(tmp_path / "a" / "model") == {"card": "first"}
    assert content(tmp_path) == {"a/model/other": "second"}


def test_an_error_leaves_all_as_it_was(tmp_path):
    with staged_folder(tmp_path / "model") as staged:
        (staged / "card").write_text("first")
    with pytest.raises(ZeroDivisionError), staged_folder(tmp_path / "model", replace=True) as staged:
        (staged / "card").write_text("half")
        raise ZeroDivisionError
    assert content(tmp_path) == {"model/card": "first"} and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match="is there already"), staged_folder(tmp_path / "model"):
        pass


def test_what_cannot_be_renamed_comes_back(tmp_path, monkeypatch):
    with staged_folder(tmp_path / "model") as staged:
        (staged / "card").write_text("first")
    path_type = type(tmp_path)
    rename = path_type.rename

    def fail(self, target):
        if self.name.endswith(".partial"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(path_type, "rename", fail)
    with pytest.raises(OSError, match="no"), staged_folder(tmp_path / "model", replace=True) as staged:
        (staged / "card").write_text("second")
    assert content(tmp_path) == {"model/card": "first"}

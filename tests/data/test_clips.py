"""What find_clips finds, in which order, and what it refuses."""

import errno
import os

import pytest

from waveflow.data import Clip, find_clips, split_clips
from waveflow.errors import InputError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def lj_folder(tmp_path, metadata, *files):
    touch(tmp_path, *files)
    (tmp_path / "metadata.csv").write_text(metadata, encoding="utf-8")
    return tmp_path


def test_lj_speech_layout_keeps_the_order_of_the_rows(tmp_path):
    folder = lj_folder(tmp_path, "b|2 cats|two cats\na|One\nc|Three|\n", "wavs/a.wav", "wavs/b.wav", "wavs/c.wav")
    assert find_clips(folder) == [
        Clip("b", folder / "wavs/b.wav", "two cats"),
        Clip("a", folder / "wavs/a.wav", "One"),
        Clip("c", folder / "wavs/c.wav", "Three"),
    ]


def test_flac_beside_the_csv(tmp_path):
    folder = lj_folder(tmp_path, "x.1|A|A\nx.2|B|B\n", "x.1.flac", "x.2.FLAC", "README.md", "unlisted.flac")
    assert [clip.path.name for clip in find_clips(str(folder))] == ["x.1.flac", "x.2.FLAC"]


def test_wavs_folder_wins_over_files_beside_the_csv(tmp_path):
    folder = lj_folder(tmp_path, "a|A\nb|B\n", "wavs/a.wav", "a.flac", "b.flac")
    assert [clip.path for clip in find_clips(folder)] == [folder / "wavs/a.wav", folder / "b.flac"]


def test_a_row_without_a_file_keeps_its_place(tmp_path):
    folder = lj_folder(tmp_path, "a|A\nb|B\nc|C\n", "wavs/a.wav", "wavs/c.wav")
    clips = find_clips(folder)
    assert [clip.name for clip in clips] == ["a", "b", "c"]
    assert not clips[1].path.exists()


def test_quotes_bars_and_byte_order_marks_of_real_files(tmp_path):
    folder = lj_folder(tmp_path, '\ufeffa|"Well," said he|"Well," said he\r\n\r\nb|B|B|extra\r\n', "a.wav", "b.wav")
    assert [(clip.name, clip.text) for clip in find_clips(folder)] == [("a", '"Well," said he'), ("b", "B")]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("", "empty"),
        ("a|A\njust text\n", "line 2 .*id|text"),
        ("|A\n", "line 1"),
        ("a|A\nb|B\na|A\n", "line 3 .*'a' came before"),
        ("x|X\n", "none of them"),
    ],
)
def test_malformed_metadata_is_refused(tmp_path, metadata, message):
    with pytest.raises(InputError, match=message):
        find_clips(lj_folder(tmp_path, metadata, "wavs/a.wav", "wavs/b.wav"))


def test_metadata_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "metadata.csv").write_bytes(b"a|caf\xe9\n")
    with pytest.raises(InputError, match=r"UTF-8 text .*metadata\.csv.* 0xe9"):
        find_clips(tmp_path)


def test_any_folder_recursively_and_sorted(tmp_path):
    touch(tmp_path, "b/2.wav", "b/10.ogg", "a.FLAC", "notes.txt", "b/._2.wav", "z.mp3")
    assert [(clip.name, clip.path, clip.text) for clip in find_clips(tmp_path)] == [
        ("a", tmp_path / "a.FLAC", None),
        ("b/10", tmp_path / "b/10.ogg", None),
        ("b/2", tmp_path / "b/2.wav", None),
        ("z", tmp_path / "z.mp3", None),
    ]


def test_names_stay_unique(tmp_path):
    touch(tmp_path, "a.wav", "a.flac")
    assert [clip.name for clip in find_clips(tmp_path)] == ["a.flac", "a.wav"]


def test_folders_inside_that_cannot_be_read_are_named(tmp_path, monkeypatch, caplog):
    scandir = os.scandir

    def guarded(path):
        if os.fspath(path) == str(tmp_path / "closed"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    (tmp_path / "closed").mkdir()
    with pytest.raises(InputError, match=r"no audio file in .*; not readable: .*closed \(Permission denied\)"):
        find_clips(tmp_path)
    (tmp_path / "open.wav").touch()
    assert [clip.name for clip in find_clips(tmp_path)] == ["open"]
    assert f"skipped folder {tmp_path / 'closed'}: Permission denied" in caplog.text


def test_missing_file_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="nothing there"):
        find_clips(tmp_path / "nowhere")
    touch(tmp_path, "a.wav")
    with pytest.raises(InputError, match="a file"):
        find_clips(tmp_path / "a.wav")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no audio file"):
        find_clips(tmp_path / "empty")


@pytest.mark.parametrize(("clips", "held_out"), [(2, 1), (9, 1), (10, 1), (31, 3), (99, 9), (100, 20), (13100, 20)])
def test_the_last_clips_are_held_out(clips, held_out):
    everything = [Clip(str(i), None) for i in range(clips)]
    train, held = split_clips(everything)
    assert len(held) == held_out
    assert train + held == everything


@pytest.mark.parametrize("clips", [0, 1])
def test_too_few_to_split(clips):
    with pytest.raises(InputError, match="at least 2"):
        split_clips([Clip("a", None)] * clips)

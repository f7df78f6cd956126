"""``waveflow evaluate``."""

import json

import pytest
import soundfile
from conftest import voice

from waveflow.audio.metrics import comparison, listening
from waveflow.evaluation import MEAN_FIGURES, YARDSTICKS


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(3):
        soundfile.write(folder / f"{i}.wav", voice(0.7 + 0.1 * i, 120 + 30 * i), 22050)
    return folder


def test_prints_a_table_and_json(run, checkpoint, data, tmp_path):
    code, said, _ = run("evaluate", "--model", checkpoint, "--data", data, "--json", tmp_path / "figures.json")
    assert code == 0
    lines = said.splitlines()
    assert lines[0].split()[:3] == ["clip", "seconds", "nats/sample"]
    assert [line.split()[0] for line in lines[2:5]] == ["0", "1", "2"]
    written = json.loads((tmp_path / "figures.json").read_text())
    printed = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert set(MEAN_FIGURES) <= written.keys() and printed.items() <= written.items()
    assert written["clips"] == len(written["per_clip"]) == 3 and written["exact"] is True
    assert list(written["yardsticks"]) == list(written["per_clip"][0]["yardsticks"]) == list(YARDSTICKS)
    for name, title in YARDSTICKS.items():
        line = next(line for line in lines if line.startswith(title))
        assert float(line.split()[-1]) == pytest.approx(written["yardsticks"][name], abs=1e-4)
    assert "near-silent" in said
    assert written["nats_per_sample"] < 0 < written["real_time_factor"]


def test_takes_the_clips_that_it_is_told(run, checkpoint, data, tmp_path):
    def names(*options):
        assert run("evaluate", "--model", checkpoint, "--data", data, "--json", tmp_path / "f.json", *options)[0] == 0
        return [clip["name"] for clip in json.loads((tmp_path / "f.json").read_text())["per_clip"]]

    assert names("--held-out") == ["2"]
    assert names("--clips", 2) == ["0", "1"]


def test_unusable_clips_are_named_and_left_out(run, checkpoint, data, tmp_path, caplog):
    (data / "corrupt.wav").write_text("noise")
    assert run("evaluate", "--model", checkpoint, "--data", data, "--json", tmp_path / "f.json")[0] == 0
    assert [skipped["name"] for skipped in json.loads((tmp_path / "f.json").read_text())["skipped"]] == ["corrupt"]
    assert "corrupt" in caplog.text


def test_without_pesq_the_figure_is_null_and_the_way_to_get_it_is_said(
    run, checkpoint, data, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(listening, "HAS_PESQ", False)
    monkeypatch.setattr(comparison, "HAS_PESQ", False)
    comparison._without_pesq.cache_clear()
    assert run("evaluate", "--model", checkpoint, "--data", data, "--json", tmp_path / "f.json", "--clips", 1)[0] == 0
    assert json.loads((tmp_path / "f.json").read_text())["pesq"] is None
    assert "pip install 'waveflow[metrics]'" in caplog.text


def test_no_usable_clip_is_an_error(refused, checkpoint, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    assert "no audio file" in refused("evaluate", "--model", checkpoint, "--data", folder)

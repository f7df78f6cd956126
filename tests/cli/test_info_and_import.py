"""``waveflow info`` and ``waveflow import``."""

import torch

from waveflow.cli import import_checkpoint
from waveflow.models import WaveGlow


def test_info_says_what_a_checkpoint_holds(run, checkpoint):
    code, said, errors = run("info", checkpoint)
    assert (code, errors) == (0, "")
    lines = dict(line.split("  ", 1) for line in said.splitlines())
    count = sum(weight.numel() for weight in WaveGlow.from_pretrained(checkpoint).parameters())
    assert lines["model"].strip() == "WaveGlow"
    assert lines["parameters"].strip() == f"{count:,}"
    assert lines["format version"].strip() == "1"
    assert "channels 8" in lines["configuration"] and "22050 Hz" in lines["mel"]


def test_info_names_the_preset(run, tmp_path):
    WaveGlow.from_preset("tiny").save_pretrained(tmp_path)
    assert "preset          tiny" in run("info", tmp_path)[1]


def test_import_writes_a_checkpoint(run, refused, checkpoint, tmp_path, monkeypatch):
    model = WaveGlow.from_pretrained(checkpoint)
    seen = []
    monkeypatch.setattr(import_checkpoint, "import_nvidia", lambda path: seen.append(path) or model)
    code, said, _ = run("import", "waveglow", "old.pt", tmp_path / "new")
    assert code == 0 and seen == ["old.pt"] and "waveflow vocode" in said
    again = WaveGlow.from_pretrained(tmp_path / "new")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))

    assert "already holds a checkpoint" in refused("import", "waveglow", "old.pt", tmp_path / "new")
    (tmp_path / "file").write_text("")
    assert "got a file" in refused("import", "waveglow", "old.pt", tmp_path / "file")
    assert len(seen) == 1


def test_import_refuses_what_is_no_checkpoint(refused, tmp_path):
    (tmp_path / "text.pt").write_text("To be or not to be")
    for source in (tmp_path / "text.pt", tmp_path / "none.pt", tmp_path):
        assert str(source) in refused("import", "waveglow", source, tmp_path / "new")
    assert not (tmp_path / "new").exists()

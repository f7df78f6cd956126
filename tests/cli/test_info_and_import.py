"""``waveflow info`` and ``waveflow import``."""

import json

import pytest
from nvidia_checkpoints import decode, fused, inputs, save

from waveflow.audio import MelConfig
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


@pytest.mark.parametrize("alternate", [False, True])
def test_import_writes_a_checkpoint_that_computes_what_the_old_one_did(run, refused, tmp_path, alternate):
    state = fused()
    save(tmp_path / "old.pt", {"state_dict": state})
    flags = ["--alternate"] if alternate else []
    code, said, _ = run("import", "waveglow", tmp_path / "old.pt", tmp_path / "new", *flags)
    assert code == 0 and "waveflow vocode" in said
    mel, _, z = inputs()
    expected = decode(state, z, mel, alternate)
    assert (WaveGlow.from_pretrained(tmp_path / "new").vocode(mel, z=z) - expected).abs().max() < 1e-5 * expected.std()

    assert "already holds a checkpoint" in refused("import", "waveglow", tmp_path / "old.pt", tmp_path / "new")
    (tmp_path / "file").write_text("")
    assert "got a file" in refused("import", "waveglow", tmp_path / "old.pt", tmp_path / "file")


def test_import_takes_the_mel_that_it_is_told(run, refused, tmp_path):
    save(tmp_path / "old.pt", {"state_dict": fused()})
    bands = WaveGlow.from_pretrained(_imported(run, tmp_path)).mel_config.n_mels
    config = MelConfig(n_mels=bands, sample_rate=16000, f_max=7600.0)
    (tmp_path / "mel.json").write_text(json.dumps(config.to_dict()))
    run("import", "waveglow", tmp_path / "old.pt", tmp_path / "told", "--mel-config", tmp_path / "mel.json")
    assert WaveGlow.from_pretrained(tmp_path / "told").mel_config == config
    wrong = ["import", "waveglow", tmp_path / "old.pt", tmp_path / "wrong", "--mel-config", "bigvgan-24k"]
    assert "bands" in refused(*wrong)


def _imported(run, tmp_path):
    run("import", "waveglow", tmp_path / "old.pt", tmp_path / "plain")
    return tmp_path / "plain"


def test_import_refuses_what_is_no_checkpoint(refused, tmp_path):
    (tmp_path / "text.pt").write_text("To be or not to be")
    for source in (tmp_path / "text.pt", tmp_path / "none.pt", tmp_path):
        assert str(source) in refused("import", "waveglow", source, tmp_path / "new")
    assert not (tmp_path / "new").exists()

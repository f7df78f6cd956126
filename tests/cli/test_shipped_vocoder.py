"""``waveflow vocode`` without ``--model``."""

import soundfile

from waveflow.models import WaveGlow, shipped


def test_the_best_that_ships_is_used(run, checkpoint, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "checkpoints")
    monkeypatch.chdir(tmp_path)
    WaveGlow.from_pretrained(checkpoint).save_pretrained(tmp_path / "checkpoints" / "waveglow-toy")
    code, said, errors = run("vocode", clip)
    assert (code, errors) == (0, "")
    assert "vocoded/clip.wav: 0.80 s of audio" in said
    made, _ = soundfile.read(tmp_path / "vocoded" / "clip.wav")
    assert run("vocode", clip, "--model", "waveglow-toy", "--out", "named")[0] == 0
    assert (soundfile.read(tmp_path / "named" / "clip.wav")[0] == made).all()
    code, said, _ = run("info", "waveglow-toy")
    assert code == 0 and said.startswith("model           WaveGlow")


def test_where_none_ships_one_line_says_what_to_do(refused, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "checkpoints")
    monkeypatch.chdir(tmp_path)
    line = refused("vocode", clip)
    assert "no vocoder ships with this installation of waveflow: name one by --model" in line
    assert not (tmp_path / "vocoded").exists()


def test_the_help_says_which_there_are(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path)
    WaveGlow(flows=1, early_every=0, channels=4, layers=1).save_pretrained(tmp_path / "waveglow-toy")
    try:
        run("vocode", "--help")
    except SystemExit as end:
        assert end.code == 0
    assert "the best of those; here: waveglow-toy" in " ".join(capsys.readouterr().out.split())

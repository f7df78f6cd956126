"""MelConfig: presets, round trip, refusals, and the message when two differ."""

import json

import pytest

from waveflow.audio import MEL_PRESETS, MelConfig
from waveflow.errors import InputError


@pytest.mark.parametrize("name", MEL_PRESETS)
def test_round_trip_through_json(name):
    config = MelConfig.from_preset(name)
    assert MelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.preset == name
    assert config.describe().startswith(f"{name} ({config.sample_rate} Hz")


def test_presets_are_the_published_ones():
    tacotron, hifigan = MelConfig.from_preset("tacotron2"), MelConfig.from_preset("hifigan-22k")
    assert tacotron.difference(hifigan) == {"magnitude_epsilon": (0.0, 1e-9), "padding": ("center", "same")}
    bigvgan, vocos = MelConfig.from_preset("bigvgan-24k"), MelConfig.from_preset("vocos-24k")
    assert (bigvgan.sample_rate, bigvgan.n_mels, bigvgan.f_max, bigvgan.mel_scale) == (24000, 100, 12000.0, "slaney")
    assert (vocos.mel_scale, vocos.norm, vocos.log_floor, vocos.padding) == ("htk", None, 1e-7, "center")


def test_equal_numbers_of_another_type_are_equal():
    assert MelConfig(f_max=8000, sample_rate=22050.0) == MelConfig()
    assert json.dumps(MelConfig(f_max=8000, sample_rate=22050.0).to_dict()) == json.dumps(MelConfig().to_dict())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_mels": 0}, "n_mels to be a positive whole number, got 0"),
        ({"hop_length": 256.5}, "hop_length"),
        ({"sample_rate": "22050"}, "sample_rate .* got '22050'"),
        ({"n_fft": True}, "n_fft"),
        ({"n_mels": float("inf")}, "n_mels"),
        ({"f_max": float("nan")}, "f_max to be a finite number"),
        ({"f_max": 12000.0}, "f_max <= 11025"),
        ({"f_min": 8000.0}, "f_min < f_max"),
        ({"n_fft": 1023, "win_length": 1023}, "even n_fft"),
        ({"win_length": 2048}, "win_length <= n_fft"),
        ({"mel_scale": "bark"}, "mel_scale to be 'slaney' or 'htk', got 'bark'"),
        ({"norm": "area"}, "norm to be 'slaney' or None"),
        ({"log_base": "2"}, "log_base"),
        ({"padding": "constant"}, "padding"),
        ({"log_floor": 0.0}, "log_floor > 0"),
        ({"padding": "same", "hop_length": 255}, "n_fft - hop_length to be even"),
        ({"padding": "same", "hop_length": 2048}, "not negative"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(InputError, match=message) as error:
        MelConfig(**fields)
    assert "\n" not in str(error.value)


def test_from_dict_refuses_what_it_does_not_know_and_guesses_nothing():
    fields = MelConfig().to_dict()
    with pytest.raises(InputError, match="unknown fields colour"):
        MelConfig.from_dict(fields | {"colour": 1})
    with pytest.raises(InputError, match="lacks sample_rate, hop_length"):
        MelConfig.from_dict(
            {name: value for name, value in fields.items() if name not in ("hop_length", "sample_rate")}
        )
    with pytest.raises(InputError, match="mapping of fields, got list"):
        MelConfig.from_dict([1])


def test_unknown_preset_lists_those_there_are():
    with pytest.raises(InputError, match=r"'tacotron', .* tacotron2, hifigan-22k, bigvgan-24k, vocos-24k"):
        MelConfig.from_preset("tacotron")


def test_difference_is_refused_with_both_configurations():
    model, mel = MelConfig(), MelConfig.from_preset("vocos-24k", hop_length=300)
    model.require_same(MelConfig())
    with pytest.raises(InputError) as error:
        model.require_same(mel, that="a.npz")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("a.npz was made with custom (24000 Hz")
    assert model.describe() in message and mel.describe() in message
    assert "hop_length (300, not 256)" in message and "n_fft (" not in message

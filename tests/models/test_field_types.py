"""What a configuration refuses, in a call and in a file."""

import json

import pytest

from waveflow.audio import MelConfig
from waveflow.errors import InputError
from waveflow.models import MAF, NICE, Glow, PixelCNN, RealNVP, WaveGlow, load_model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NICE(hidden=["a"]), r"NICE expects hidden as a list of whole numbers, got \['a'\]"),
        (lambda: NICE(hidden=(8, True)), r"NICE expects hidden as a list of whole numbers, got \(8, True\)"),
        (lambda: MAF(features=2, hidden=8), "MAF expects hidden as a list of whole numbers, got 8"),
        (lambda: MAF(features="2"), "MAF expects features as a whole number, got '2'"),
        (lambda: Glow(values=17.5), "Glow expects values as a whole number, got 17.5"),
        (lambda: Glow(norm="no"), "Glow expects norm as true or false, got 'no'"),
        (lambda: Glow(steps=True), "Glow expects steps as a whole number, got True"),
        (lambda: Glow(memory=1), "Glow expects memory as a word, got 1"),
        (lambda: RealNVP(alpha="low"), "RealNVP expects alpha as a number, got 'low'"),
        (lambda: RealNVP(alpha=None), "RealNVP expects alpha as a number, got None"),
        (lambda: PixelCNN(head=2), "PixelCNN expects head as a word or null, got 2"),
        (lambda: WaveGlow(mel=80), "WaveGlow expects mel as a MelConfig, got 80"),
    ],
)
def test_values_of_another_type_are_refused(call, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        call()


def test_kinds_that_do():
    assert NICE.make_config(hidden=[8, 8]).hidden == (8, 8)
    assert PixelCNN.make_config(head=None).head == "categorical"
    assert WaveGlow.make_config(temperature=1, mel=MelConfig()).temperature == 1


@pytest.mark.parametrize(("name", "value"), [("values", 17.5), ("norm", "no"), ("steps", [1]), ("memory", None)])
def test_a_file_with_a_value_of_another_type_is_refused(name, value, tmp_path):
    Glow(height=4, width=4, levels=1, steps=1, hidden=2).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["config"][name] = value
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"config.json: Glow expects {name} as .*, got"):
        load_model(tmp_path)

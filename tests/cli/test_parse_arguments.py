"""A dataclass read from the command line and from YAML."""

from dataclasses import dataclass
from typing import Literal

import pytest

from waveflow.cli import default_out, parse_arguments
from waveflow.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """Do something.

    Args:
        batch_size: Items per step.
        rate: How fast.
        device: Where.
        name: Of the thing.
        resume: Go on.
    """

    batch_size: int = 4
    rate: float = 1e-3
    device: Literal["auto", "cpu"] = "auto"
    name: str | None = None
    resume: bool = False


def test_flags_are_fields_with_dashes():
    assert parse_arguments(Arguments, []) == Arguments()
    words = ["--batch-size", "8", "--rate", "1e-4", "--device", "cpu", "--name", "x", "--resume"]
    assert parse_arguments(Arguments, words) == Arguments(8, 1e-4, "cpu", "x", True)


def test_a_file_sets_what_flags_may_override(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("batch_size: 7\nrate: 1.0e-2\nresume: true\n")
    words = ["--config", str(file), "--rate", "0.5"]
    assert parse_arguments(Arguments, words) == Arguments(batch_size=7, rate=0.5, resume=True)


def test_a_printed_configuration_reads_back(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        parse_arguments(Arguments, ["--batch-size", "9", "--print_config"])
    assert end.value.code == 0
    (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
    assert parse_arguments(Arguments, ["--config", str(tmp_path / "c.yaml")]) == Arguments(batch_size=9)


def test_help_is_the_docstring(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(Arguments, ["--help"])
    text = capsys.readouterr().out
    assert "Do something." in text and "--batch-size" in text and "Items per step." in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--batch-size", "x"], "--batch-size: Expected int. Got value: x"),
        (["--device", "tpu"], "--device: Expected one of 'auto', 'cpu'. Got value: tpu"),
        (["--batch"], "--batch"),
        (["word"], "word"),
        (["--config", "none.yaml"], "none.yaml"),
    ],
)
def test_wrong_words_are_one_line(words, expected):
    with pytest.raises(InputError) as error:
        parse_arguments(Arguments, words)
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["batch_sise: 3", "batch_size: [", "batch_size: many", "- 1\n- 2", "\x00"])
def test_a_wrong_file_is_one_line(tmp_path, content):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(InputError) as error:
        parse_arguments(Arguments, ["--config", str(tmp_path / "c.yaml")])
    assert "\n" not in str(error.value)


def test_default_out_is_the_first_folder_without_a_run(tmp_path):
    assert default_out("m", root=tmp_path) == tmp_path / "m"
    (tmp_path / "m" / "checkpoints").mkdir(parents=True)
    assert default_out("m", root=tmp_path) == tmp_path / "m"  # a run that never began
    (tmp_path / "m" / "model.safetensors").touch()
    assert default_out("m", root=tmp_path) == tmp_path / "m-2"
    (tmp_path / "m-2" / "checkpoints").mkdir(parents=True)
    (tmp_path / "m-2" / "checkpoints" / "step-00000001.safetensors").touch()
    assert default_out("m", root=tmp_path) == tmp_path / "m-3"
    assert default_out("m", resume=True, root=tmp_path) == tmp_path / "m-2"
    with pytest.raises(InputError, match="nothing to resume"):
        default_out("other", resume=True, root=tmp_path)

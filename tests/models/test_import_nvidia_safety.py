"""Importing a checkpoint executes nothing that is in it, and a damaged one ends in one line."""

import contextlib
import gzip
import os
import pickle
import random
import tarfile
import zipfile
from collections import OrderedDict

import pytest
import safetensors.torch
import torch
from nvidia_checkpoints import BANDS, as_nemo, save, small, write_nemo, write_pickle

from waveflow.errors import InputError
from waveflow.models.waveglow import import_nvidia

CONTAINERS = {"zip": False, "legacy": True}


@pytest.fixture(scope="module")
def state():
    return small(kernel=1024, bands=BANDS)


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


PAYLOADS = {
    "os.system": lambda marker: Call(os.system, f"touch {marker}"),
    "eval": lambda marker: Call(eval, f"open({str(marker)!r}, 'w')"),
    "exec": lambda marker: Call(exec, f"open({str(marker)!r}, 'w')"),
    "open": lambda marker: Call(open, str(marker), "w"),
    "getattr": lambda marker: Call(map, Call(getattr, Call(__import__, "os"), "system"), [f"touch {marker}"]),
    "a pickle of torch in a pickle": lambda marker: Call(
        torch.storage._load_from_bytes, pickle.dumps(Call(os.system, f"touch {marker}"))
    ),
    "torch.load": lambda marker: Call(torch.load, str(marker)),
    "as state": lambda marker: Stateful(Call(os.system, f"touch {marker}")),
    "as item": lambda marker: OrderedDict(key=[{"a": (Call(os.system, f"touch {marker}"),)}]),
}


class Stateful:
    def __init__(self, state):
        self.state = state


@pytest.mark.parametrize("name", ["os.system", "eval", "exec", "open"])
def test_these_payloads_are_live(name, tmp_path):
    pickle.loads(pickle.dumps(PAYLOADS[name](tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("name", PAYLOADS)
def test_no_payload_runs(name, legacy, state, tmp_path):
    payload = PAYLOADS[name](tmp_path / "marker")
    model = import_nvidia(save(tmp_path / "a.pt", {"payload": payload, "model": state, "after": payload}, legacy))
    assert model.config.flows == 2
    with pytest.raises(InputError):
        import_nvidia(save(tmp_path / "b.pt", payload, legacy))
    with pytest.raises(InputError):
        import_nvidia(save(tmp_path / "c.pt", {"state_dict": state | {"WN.0.end.bias": payload}}, legacy))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("legacy", CONTAINERS.values(), ids=CONTAINERS)
def test_no_payload_runs_inside_of_nemo(mode, legacy, state, tmp_path):
    weights = as_nemo(state) | {"payload": PAYLOADS["os.system"](tmp_path / "marker")}
    import_nvidia(write_nemo(tmp_path / "a.nemo", save(tmp_path / "weights", weights, legacy), mode=mode))
    assert not (tmp_path / "marker").exists()


def test_no_code_runs_in_the_settings_of_nemo(state, tmp_path):
    path = write_nemo(tmp_path / "a.nemo", save(tmp_path / "weights", as_nemo(state)))
    text = f"!!python/object/apply:os.system ['touch {tmp_path / 'marker'}']"
    (tmp_path / "model_config.yaml").write_text(text)
    with tarfile.open(path, "a") as tar:
        tar.add(tmp_path / "model_config.yaml", "model_config.yaml")
    with pytest.raises(InputError, match="truncated or damaged"):
        import_nvidia(path)
    assert not (tmp_path / "marker").exists()


def test_nothing_is_unpacked_where_the_archive_says(state, tmp_path, monkeypatch):
    home = tmp_path / "a" / "b" / "c"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    weights = save(tmp_path / "weights", as_nemo(state))
    names = ["../escaped", f"{tmp_path}/absolute", "inside"]
    path = write_nemo(home / "x.nemo", weights, mode="w:gz", more=[(name, weights) for name in names])
    before = sorted(tmp_path.rglob("*"))
    import_nvidia(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_links_in_the_archive_are_not_followed(state, tmp_path):
    weights = save(tmp_path / "weights", as_nemo(state))
    with tarfile.open(tmp_path / "x.nemo", "w") as tar:
        link = tarfile.TarInfo("model_weights.ckpt")
        link.type, link.linkname = tarfile.SYMTYPE, str(weights)
        tar.addfile(link)
    with pytest.raises(InputError, match=r"one \.ckpt file, got nothing"):
        import_nvidia(tmp_path / "x.nemo")


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def name(module, function):
    return f"c{module}\n{function}\n".encode()


KNOWN = [
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "FloatStorage"),
    ("os", "system"),
]


@pytest.mark.parametrize("legacy", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("known", KNOWN, ids=".".join)
@pytest.mark.parametrize("attribute", ["__new__", "__setstate__", "find_class", "items"])
def test_a_pickle_cannot_change_what_reads_it(known, attribute, legacy, state, tmp_path):
    # BUILD with (None, {attribute: os.system}) on the very thing that a name stands for.
    slots = b"N}" + text(attribute) + name("os", "system") + b"s\x86"
    path = write_pickle(tmp_path / "a.pt", b"\x80\x02" + name(*known) + slots + b"b.", legacy)
    with pytest.raises(InputError):
        import_nvidia(path)
    assert import_nvidia(save(tmp_path / "b.pt", state, legacy)).config.flows == 2


RAW = {
    "a call of a number": b"\x80\x02K\x01)R.",
    "a call of a shell that is no class": b"\x80\x02" + name("os", "system") + b")R)R.",
    "extension registry": b"\x80\x02\x82\x01.",
    "no end": b"\x80\x02}",
    "an empty stack": b"\x80\x02.",
    "a deep list": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a huge string": b"\x80\x02\x8d" + b"\xff" * 7 + b"\x7f.",
    "a storage that is no tuple": b"\x80\x02NQ.",
    "a storage without a type": b"\x80\x02(X\x07\x00\x00\x00storageK\x01K\x02K\x03K\x04tQ.",
}


@pytest.mark.parametrize("legacy", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("case", RAW)
def test_malformed_pickles_end_in_one_line(case, legacy, tmp_path):
    path = write_pickle(tmp_path / "a.pt", RAW[case], legacy)
    with pytest.raises(InputError) as error:
        import_nvidia(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("legacy", CONTAINERS.values(), ids=CONTAINERS)
def test_a_huge_memo_is_not_allocated(legacy, tmp_path):
    path = write_pickle(tmp_path / "a.pt", b"\x80\x02Nr\xff\xff\xff\x7f.", legacy)
    with pytest.raises(InputError, match="memo numbered out of turn"):
        import_nvidia(path)


@pytest.mark.filterwarnings("ignore")
def test_modules_in_a_circle_are_walked_once(tmp_path):
    module = torch.nn.Linear(1, 1)
    module._modules["itself"] = module._modules["again"] = module
    with pytest.raises(InputError, match="Linear with weight, bias"):
        import_nvidia(save(tmp_path / "a.pt", {"model": module}))


def test_dicts_in_a_circle_are_walked_once(tmp_path):
    content = {}
    content.update({f"key {i}": content for i in range(3000)})
    with pytest.raises(InputError, match="got key 0"):
        import_nvidia(save(tmp_path / "a.pt", content))


def test_messages_hold_no_control_characters(state, tmp_path):
    for content in ({"\x1b[2J\nmodel": 1}, state | {"WN.0.\x1b[2J": torch.zeros(1)}):
        with pytest.raises(InputError) as error:
            import_nvidia(save(tmp_path / "a.pt", content))
        assert str(error.value).isprintable()


def test_short_yaml_for_a_long_value_is_not_printed(state, tmp_path):
    value = "x"
    for _ in range(40):
        value = [value, value]
    path = write_nemo(tmp_path / "a.nemo", save(tmp_path / "w", as_nemo(state)), {"preprocessor": {"nfilt": value}})
    with pytest.raises(InputError, match="list"):
        import_nvidia(path)


class Stored:
    """Pickles as a tensor with any offset, size and strides over a storage of 6 floats."""

    def __init__(self, *fields):
        self.fields = fields

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (Storage(), *self.fields, False, OrderedDict())


class Storage:
    pass


class Pickler(pickle._Pickler):
    def persistent_id(self, value):
        return ("storage", torch.FloatStorage, "0", "cpu", 6) if isinstance(value, Storage) else None


@pytest.mark.parametrize(
    "fields, fits",
    [
        ((0, (2, 3), (3, 1)), True),
        ((2, (2, 2), (2, 1)), True),
        ((7, (0,), (1,)), True),
        ((1, (2, 3), (3, 1)), False),
        ((0, (2, 3), (300, 1)), False),
        ((0, (7,), (1,)), False),
        ((-1, (2,), (1,)), False),
        ((4, (2,), (-1,)), False),
        ((0, (2, 3), (3,)), False),
        ((0, (1 << 40,), (0,)), False),
        ((0, (1 << 40, 0), (1, 1)), True),
        ((0, (2.0,), (1,)), False),
        ((0, 2, 1), False),
    ],
)
def test_tensors_stay_inside_of_their_storage(fields, fits, tmp_path):
    with open(tmp_path / "data.pkl", "wb") as file:
        Pickler(file, 2).dump({"upsample.weight": Stored(*fields)})
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.write(tmp_path / "data.pkl", "archive/data.pkl")
        archive.writestr("archive/data/0", bytes(24))
    with pytest.raises(InputError, match="expected the keys" if fits else "truncated or damaged"):
        import_nvidia(tmp_path / "a.pt")


def files(state, folder):
    """A checkpoint in every container, by name."""
    safetensors.torch.save_file(state, folder / "safetensors")
    weights = save(folder / "weights", as_nemo(state))
    return {
        "zip": save(folder / "zip", state),
        "legacy": save(folder / "legacy", state, legacy=True),
        "nemo": write_nemo(folder / "nemo", weights),
        "nemo, gzipped": write_nemo(folder / "gzipped", weights, mode="w:gz"),
        "safetensors": folder / "safetensors",
    }


@pytest.fixture(scope="module")
def whole(state, tmp_path_factory):
    return {kind: path.read_bytes() for kind, path in files(state, tmp_path_factory.mktemp("whole")).items()}


KINDS = ["zip", "legacy", "nemo", "nemo, gzipped", "safetensors"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.001, 0.2, 0.6, 0.97])
def test_a_truncated_file_ends_in_one_line(kind, part, whole, tmp_path):
    content = whole[kind]
    (tmp_path / "cut").write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InputError) as error:
        import_nvidia(tmp_path / "cut")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("legacy", CONTAINERS.values(), ids=CONTAINERS)
def test_a_file_truncated_behind_the_model_is_refused_too(legacy, state, tmp_path):
    path = save(tmp_path / "a.pt", {"model": state, "optimizer": torch.zeros(10_000)}, legacy)
    import_nvidia(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="truncated or damaged"):
        import_nvidia(path)


@pytest.mark.parametrize("content", [b"text", b"", bytes(10240)], ids=["text", "nothing", "an empty tar"])
def test_a_gzip_of_something_else_ends_in_one_line(content, tmp_path):
    (tmp_path / "a.nemo").write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=r"truncated or damaged|got nothing"):
        import_nvidia(tmp_path / "a.nemo")


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes_end_in_one_line_or_in_a_model(kind, whole, tmp_path):
    generator = random.Random(0)
    for _ in range(12):
        content = bytearray(whole[kind])
        for _ in range(3):
            # Half of them into the beginning, where the structure is, rather than into numbers.
            at = generator.randrange(len(content) if generator.random() < 0.5 else min(len(content), 4000))
            content[at] = generator.randrange(256)
        (tmp_path / "flipped").write_bytes(content)
        with contextlib.suppress(InputError):
            import_nvidia(tmp_path / "flipped")

"""``waveflow compare``."""

import dataclasses
import functools
import html.parser
import json
import signal
import urllib.parse
import weakref

import pytest
import soundfile
import torch
from conftest import SMALL, voice

import waveflow.cli.compare as compare_command
from waveflow.audio import MelConfig, write_mel
from waveflow.data import WholeClips, find_clips
from waveflow.models import NICE, WaveGlow, WaveNet, load_model
from waveflow.models.pretrained import PretrainedModel

NARROW = {"layers": 2, "channels": 4, "upsampler": "linear", "context_channels": 4}


def model(folder, seed=1, **fields):
    torch.manual_seed(seed)
    made = WaveGlow(**{**SMALL, **fields})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models of one name, and one of another width."""
    folder = tmp_path_factory.mktemp("models")
    return [model(folder / "a" / "glow"), model(folder / "b" / "glow", 2), model(folder / "wide <b>", channels=12)]


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """A WaveNet of three voices, which differ."""
    torch.manual_seed(5)
    made = WaveNet(**NARROW, speakers=3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("voices") / "wavenet"
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "set #1").mkdir()
    for i in range(3):
        soundfile.write(folder / "set #1" / f"{i}.wav", voice(0.7 + 0.1 * i, 120 + 30 * i), 22050)
    return folder


@pytest.fixture
def compare(run, data, tmp_path):
    def call(*words):
        return run("compare", "--data", data, "--out", tmp_path / "out", *words)

    return call


@pytest.fixture
def not_compared(refused, data, tmp_path):
    def call(*words):
        message = refused("compare", "--data", data, "--out", tmp_path / "out", *words)
        assert not (tmp_path / "out").exists()
        return message

    return call


class Page(html.parser.HTMLParser):
    """Every source on the page, and all its text."""

    def __init__(self, text: str):
        super().__init__()
        self.sources, self.tags, self.text = [], set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [value for name, value in attributes if name == "src"]

    def handle_data(self, data):
        self.text += data


def test_one_table_for_all(compare, models, data, run, tmp_path):
    code, said, _ = compare("--models", *models)
    assert code == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line[:1] == "|"]
    titles, rule, *rows = rows
    rows = {row[0]: row for row in rows}
    assert set(rows) == {"a-glow", "b-glow", f"{models[2].parent.name}-wide <b>", "recordings"}
    nats = [float(row[3]) for name, row in rows.items() if name != "recordings"]
    assert nats == sorted(nats, reverse=True) and list(rows)[-1] == "recordings"
    assert titles[:4] == ["model", "kind", "parameters", "nats/sample"] and titles[-1] == "RTF"
    assert set("".join(rule)) <= set("-: ")
    assert (tmp_path / "out" / "table.md").read_text() == said

    figures = json.loads((tmp_path / "out" / "compare.json").read_text())
    alone = tmp_path / "alone.json"
    for entry, folder in zip(figures["models"], models, strict=True):
        row = rows[entry["name"]]
        assert run("evaluate", "--model", folder, "--data", data, "--json", alone)[0] == 0
        expected = json.loads(alone.read_text())
        for name in ("nats_per_sample", "stoi", "mstft", "mcd", "f0_rmse", "vuv_f1", "exact", "yardsticks"):
            assert entry[name] == expected[name], name
        assert float(row[3]) == pytest.approx(entry["nats_per_sample"], abs=1e-4)
        assert entry["source"] == str(folder) and entry["kind"] == "WaveGlow" and entry["failure"] is None
        count = sum(parameter.numel() for parameter in WaveGlow.from_pretrained(folder).parameters())
        assert entry["parameters"] == count == int(row[2].replace(",", ""))
    assert len({entry["nats_per_sample"] for entry in figures["models"]}) == 3
    assert figures["recordings"]["stoi"] == pytest.approx(1, abs=1e-4)
    assert figures["recordings"]["mstft"] == figures["recordings"]["mcd"] == 0
    assert "thread" in figures["device"] and figures["device"] in said


def test_a_page_whose_sounds_and_pictures_are_there(compare, models, tmp_path):
    assert compare("--models", *models, "--clips", 2)[0] == 0
    out = tmp_path / "out"
    page = Page((out / "index.html").read_text())
    assert not page.tags & {"script", "b>", "link"}
    files = [out / urllib.parse.unquote(source) for source in page.sources]
    assert len(files) == len(set(files)) == 4 * 2 * 2
    for file in files:
        assert file.read_bytes()[:4] == (b"RIFF" if file.suffix == ".wav" else b"\x89PNG")
    assert "wide <b>" in page.text and "set #1/0" in page.text
    copy, rate = soundfile.read(out / "a-glow" / "set #1_0.wav")
    real, _ = soundfile.read(out / "recordings" / "set #1_0.wav")
    assert rate == 22050 and len(copy) == len(real) == int(0.7 * rate) // 256 * 256
    assert (out / "mels.png").read_bytes()[:4] == b"\x89PNG"


def test_the_sound_is_that_of_vocode(compare, run, models, data, tmp_path):
    options = ("--seed", 3, "--temperature", 0.5)
    assert compare("--models", models[0], "--clips", 1, *options)[0] == 0
    clip = next(iter(WholeClips(find_clips(data), MelConfig())))
    write_mel(tmp_path / "0.npz", clip["mel"], MelConfig())
    assert run("vocode", tmp_path / "0.npz", "--model", models[0], "--out", tmp_path / "alone", *options)[0] == 0
    assert (tmp_path / "alone" / "0.wav").read_bytes() == (tmp_path / "out" / "glow" / "set #1_0.wav").read_bytes()


def test_no_model_matches_unless_all_do(compare, run, models, tmp_path):
    """A checkpoint that matches by itself beside the same one that does not."""
    matching = load_model(models[0])
    matching.config = dataclasses.replace(matching.config, match=3)
    matching.save_pretrained(tmp_path / "matching")
    distances = []
    for rounds in (0, 3):
        words = ["--match", rounds] if rounds else []
        code, said, _ = compare("--models", models[0], tmp_path / "matching", "--clips", 1, "--json", *words)
        figures = json.loads(said)
        assert code == 0 and figures["match"] == rounds
        alone, beside = (each["per_clip"][0]["log_mel_l1"] for each in figures["models"])
        assert alone == beside
        distances.append(alone)
    assert distances[1] < distances[0] / 2


def test_figures_as_json(compare, models, tmp_path):
    code, said, _ = compare("--models", models[0], "--held-out", "--json")
    assert code == 0 and json.loads(said) == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [clip["name"] for clip in json.loads(said)["models"][0]["per_clip"]] == ["set #1/2"]


def test_what_is_said_of_a_clip_is_on_the_page(run, models, data, tmp_path):
    listed = tmp_path / "listed"
    listed.mkdir()
    (listed / "x.wav").write_bytes((data / "set #1" / "0.wav").read_bytes())
    (listed / "metadata.csv").write_text("x|Fish & <chips>.\n")
    assert run("compare", "--models", models[0], "--data", listed, "--out", tmp_path / "out")[0] == 0
    assert "Fish & <chips>." in Page((tmp_path / "out" / "index.html").read_text()).text


def test_mels_of_two_kinds_each_get_their_own(compare, run, models, data, tmp_path):
    other = model(tmp_path / "uncentred", mel=MelConfig.from_preset("hifigan-22k"))
    assert compare("--models", models[0], other, "--clips", 1)[0] == 0
    figures = json.loads((tmp_path / "out" / "compare.json").read_text())["models"]
    assert run("evaluate", "--model", other, "--data", data, "--clips", 1, "--json", tmp_path / "f.json")[0] == 0
    assert figures[1]["nats_per_sample"] == json.loads((tmp_path / "f.json").read_text())["nats_per_sample"]


def test_a_model_that_fails_is_named_and_the_others_are_done(compare, models, tmp_path):
    bad = model(tmp_path / "bad")
    broken = WaveGlow.from_pretrained(bad)
    with torch.no_grad():
        for coupling in broken.couplings():
            coupling.conditioner.output.bias.fill_(1e30)
    broken.save_pretrained(bad)
    code, said, errors = compare("--models", bad, models[0], "--clips", 1)
    assert code == 2
    lines = [line for line in errors.splitlines() if line.startswith("waveflow: error: ")]
    assert len(lines) == 2 and str(bad) in lines[0] and "1 of 2 models" in lines[1]
    assert "bad failed: " in said and "Traceback" not in errors
    figures = json.loads((tmp_path / "out" / "compare.json").read_text())["models"]
    assert figures[0]["failure"] and "nats_per_sample" not in figures[0] and figures[1]["nats_per_sample"]
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert "failed" in page.text and not any(source.startswith("bad/") for source in page.sources)


def test_models_of_two_sample_rates_are_refused_by_name(not_compared, models, tmp_path):
    mel = MelConfig.from_preset("tacotron2", sample_rate=24000)
    message = not_compared("--models", models[0], model(tmp_path / "fast", mel=mel))
    assert "glow 22050 Hz" in message and "fast 24000 Hz" in message


def test_bad_models_are_refused_before_anything_is_made(not_compared, models, tmp_path):
    assert "no such folder" in not_compared("--models", models[0], tmp_path / "none")
    assert "twice" in not_compared("--models", models[0], f"{models[0]}/../glow")
    NICE.from_preset("digits").save_pretrained(tmp_path / "nice")
    assert "holds a NICE, which is no vocoder" in not_compared("--models", models[0], tmp_path / "nice")
    assert "--models" in not_compared()


def test_voices_and_ways_of_sampling_are_for_the_models_that_have_them(compare, run, models, voices, data, tmp_path):
    options = ("--clips", 1, "--speaker", 2, "--method", "incremental")
    assert compare("--models", models[0], voices, *options)[0] == 0
    figures = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert (figures["speaker"], figures["method"]) == (2, "incremental")
    for folder, entry, own in zip((models[0], voices), figures["models"], ((), options[2:]), strict=True):
        alone = ("evaluate", "--model", folder, "--data", data, "--clips", 1, *own, "--json", tmp_path / "alone.json")
        assert run(*alone)[0] == 0
        expected = json.loads((tmp_path / "alone.json").read_text())
        for name in ("nats_per_sample", "mstft", "stoi"):
            assert entry[name] == expected[name]


def test_the_method_reaches_the_sampler(compare, models, voices, monkeypatch):
    seen, vocode = [], WaveNet.vocode

    @functools.wraps(vocode)
    def noted(self, *arguments, **more):
        seen.append(more.get("method"))
        return vocode(self, *arguments, **more)

    monkeypatch.setattr(WaveNet, "vocode", noted)
    words = ("--models", models[0], voices, "--clips", 1, "--speaker", 0)
    assert compare(*words, "--method", "incremental")[0] == 0 and set(seen) == {"incremental"}
    seen.clear()
    assert compare(*words, "--method", "auto")[0] == 0 and set(seen) == {None}


def test_what_no_model_has_is_refused(not_compared, models, voices):
    both = ("--models", models[0], voices)
    message = not_compared("--models", models[0], "--method", "jacobi")
    assert "--method jacobi: none of the models" in message
    assert "incremental" in not_compared(*both, "--speaker", 0, "--method", "magic")
    if not torch.cuda.is_available():
        assert "CUDA devices only" in not_compared(*both, "--speaker", 0, "--method", "graph")
    for number in (3, -1):
        message = not_compared(*both, "--speaker", number)
        assert f"--speaker {number}: none of the models" in message and "glow 1, wavenet 3" in message


def test_each_model_is_loaded_once(compare, models, monkeypatch):
    loaded, load = [], PretrainedModel._load_weights
    monkeypatch.setattr(
        PretrainedModel, "_load_weights", lambda self, w, origin: loaded.append(origin) or load(self, w, origin)
    )
    assert compare("--models", *models, "--clips", 1)[0] == 0
    assert loaded == [str(folder / "model.safetensors") for folder in models]


@pytest.fixture
def signalled(monkeypatch):
    """A signal in the middle of the n-th synthesis, the one to warm up included."""

    def at(count: int, signum: int):
        calls, vocode = iter(range(1, 100)), WaveGlow.vocode

        def counted(self, *arguments, **more):
            if next(calls) == count:
                signal.raise_signal(signum)
            return vocode(self, *arguments, **more)

        monkeypatch.setattr(WaveGlow, "vocode", counted)

    return at


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_what_was_measured(compare, models, tmp_path, signalled, signum):
    assert compare("--models", models[0], "--clips", 2)[0] == 0
    whole = json.loads((tmp_path / "out" / "compare.json").read_text())["models"][0]
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    signalled(6, signum)
    code, said, errors = compare("--models", *models, "--clips", 2)
    assert code == 130 and "Traceback" not in errors
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert "interrupted: what is written is about 1 of 3 models" in errors and "3 of 3: " not in errors
    out = tmp_path / "out"
    figures = json.loads((out / "compare.json").read_text())["models"]
    assert [entry["name"] for entry in figures if "nats_per_sample" in entry] == ["a-glow"]
    for name in ("nats_per_sample", "mstft", "stoi"):
        assert figures[0][name] == whole[name]
    assert (out / "table.md").read_text() == said
    assert f"Interrupted before these were measured: b-glow, {models[2].parent.name}-wide <b>." in said
    page = Page((out / "index.html").read_text())
    assert "Interrupted before" in page.text
    assert {source.split("/")[0] for source in page.sources} == {"recordings", "a-glow"}
    assert all((out / urllib.parse.unquote(source)).is_file() for source in page.sources)
    assert (out / "mels.png").read_bytes()[:4] == b"\x89PNG"


def test_interrupted_before_the_first_is_done_it_says_so(compare, models, tmp_path, signalled):
    signalled(2, signal.SIGINT)
    code, said, errors = compare("--models", *models, "--clips", 2)
    assert (code, said) == (130, "") and "before a model was measured" in errors
    assert not {"table.md", "compare.json", "index.html"} & {path.name for path in (tmp_path / "out").iterdir()}


def test_interrupted_among_the_recordings_it_says_so(compare, models, monkeypatch):
    monkeypatch.setattr(compare_command, "ceiling", lambda data: signal.raise_signal(signal.SIGINT))
    code, said, errors = compare("--models", models[0], "--clips", 1)
    assert (code, said) == (130, "") and "before a model was measured" in errors and "Traceback" not in errors


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_python_lost_counts_from_the_next_clip_on(compare, models, monkeypatch):
    calls, vocode = [], WaveGlow.vocode

    def deaf(self, *arguments, **more):
        calls.append(self)
        if len(calls) == 5:  # the first clip of the second model
            mortal = {0}
            watcher = weakref.ref(mortal, lambda _: signal.raise_signal(signal.SIGINT))
            del mortal
            assert watcher() is None
        return vocode(self, *arguments, **more)

    monkeypatch.setattr(WaveGlow, "vocode", deaf)
    code, _, errors = compare("--models", *models, "--clips", 2)
    assert code == 130 and "about 1 of 3 models" in errors and len(calls) == 5


def test_a_bar_counts_clips(compare, models, monkeypatch):
    bars = []

    class Bar(compare_command.tqdm):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, **{**more, "disable": False})
            bars.append(self)

    monkeypatch.setattr(compare_command, "tqdm", Bar)
    _, _, errors = compare("--models", *models[:2], "--clips", 2)
    assert [(bar.n, bar.total) for bar in bars] == [(6, 6)]
    assert "recordings: " in errors and "b-glow: " in errors


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--clips", "0"), "--clips"),
        (("--data", "/no/such"), "/no/such"),
        (("--temperature", "-1"), "--temperature"),
        (("--denoise", "nan"), "--denoise"),
        (("--chunk-frames", "-1"), "--chunk-frames"),
        (("--precision", "8"), "--precision"),
    ],
)
def test_bad_options_are_refused(not_compared, models, words, expected):
    assert expected in not_compared("--models", models[0], *words)


def test_no_usable_clip_is_an_error(not_compared, models, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no audio file" in not_compared("--models", models[0], "--data", tmp_path / "empty")
    (tmp_path / "empty" / "x.wav").write_text("noise")
    assert "no clip is left" in not_compared("--models", models[0], "--data", tmp_path / "empty")


def test_nothing_of_others_is_written_over(refused, models, data, tmp_path):
    (tmp_path / "file").write_text("mine")
    words = ("compare", "--models", models[0], "--data", data, "--out")
    assert "got a file" in refused(*words, tmp_path / "file")
    assert "choose another folder" in refused(*words, models[0].parent)
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "a.wav").write_bytes((data / "set #1" / "0.wav").read_bytes())
    words = ("compare", "--models", models[0], "--data", tmp_path, "--out", tmp_path)
    assert "choose another folder" in refused(*words)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.wav", "file", "recordings"]

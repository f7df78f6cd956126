"""``waveflow sample``, ``interpolate`` and ``edit`` against the model called by hand; and what they refuse."""

import numpy as np
import pytest
import torch
from PIL import Image

from waveflow.images import attribute_vector, image_grid, interpolate, manipulate, save_grid, spherical
from waveflow.models import Glow, PixelCNN

SMALL = {"channels": 3, "height": 8, "width": 8, "levels": 2, "steps": 1, "hidden": 8}


def make(folder, **fields):
    """A Glow whose couplings do something, saved."""
    torch.manual_seed(1)
    model = Glow(**(SMALL | fields))
    config = model.config
    labels = torch.arange(16) % config.classes if config.classes else None
    model.initialize(torch.randint(config.values, (16, *model.image_shape)).byte(), labels)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def glow(tmp_path_factory):
    """Folder of a model of colour images, 8 x 8."""
    return make(tmp_path_factory.mktemp("models") / "glow")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Folder of a model of grey images of 17 values and three classes."""
    return make(tmp_path_factory.mktemp("models") / "classes", channels=1, values=17, classes=3)


@pytest.fixture(scope="module")
def pixelcnn(tmp_path_factory):
    """Folder of a model without latents."""
    folder = tmp_path_factory.mktemp("models") / "pixelcnn"
    PixelCNN(channels=1, height=4, width=4, values=2, hidden=8, layers=1).save_pretrained(folder)
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Two image files, 8 x 8 in colour, and their pixels."""
    pixels = torch.randint(256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(5)).byte()
    for name, image in zip("ab", pixels, strict=True):
        save_grid(tmp_path / f"{name}.png", image[None])
    return tmp_path / "a.png", tmp_path / "b.png", pixels


@pytest.fixture
def smile(glow, tmp_path):
    """An attribute vector of the model, in a file."""
    images = torch.randint(256, (10, 3, 8, 8), generator=torch.Generator().manual_seed(6)).byte()
    vector = attribute_vector(Glow.from_pretrained(glow), images, torch.arange(10) % 2)
    vector.save(tmp_path / "smile.safetensors")
    return tmp_path / "smile.safetensors", vector


def pixels_of(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).reshape(image.height, image.width, -1)


def test_samples_are_those_of_the_model(run, glow, tmp_path):
    out = tmp_path / "grid.png"
    code, said, errors = run("sample", glow, "--n", 5, "--temperature", 0.7, "--seed", 3, "--out", out, "--zoom", 2)
    assert (code, errors) == (0, "") and said == f"{out}: 5 images of 8x8 pixels\n"
    images = Glow.from_pretrained(glow).sample(5, 0.7, generator=torch.Generator().manual_seed(3))
    assert np.array_equal(pixels_of(out), image_grid(images, 3, zoom=2, gap=2))
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_seed_temperature_and_columns_reach_the_samples(run, glow, tmp_path):
    options = {"a": (), "b": (), "c": ("--seed", 1), "d": ("--temperature", 0.3), "e": ("--columns", 4)}
    for name, words in options.items():
        assert run("sample", glow, "--n", 4, "--out", tmp_path / f"{name}.png", *words)[0] == 0
    a, b, c, d, e = ((tmp_path / f"{name}.png").read_bytes() for name in options)
    assert a == b and len({a, c, d, e}) == 4
    assert pixels_of(tmp_path / "e.png").shape == (8, 4 * 10 - 2, 3)


def test_many_samples_come_in_turns(run, glow, tmp_path):
    assert run("sample", glow, "--n", 70, "--columns", 70, "--out", tmp_path / "grid.png")[0] == 0
    model, generator = Glow.from_pretrained(glow), torch.Generator().manual_seed(0)
    images = torch.cat([model.sample(n, generator=generator) for n in (64, 6)])
    assert np.array_equal(pixels_of(tmp_path / "grid.png"), image_grid(images, 70, gap=2))


def test_a_class_is_sampled(run, classes, tmp_path):
    assert run("sample", classes, "--n", 4, "--label", 2, "--out", tmp_path / "grid.png")[0] == 0
    images = Glow.from_pretrained(classes).sample(4, label=2, generator=torch.Generator().manual_seed(0))
    grid = pixels_of(tmp_path / "grid.png")
    assert np.array_equal(grid, image_grid(images, 2, values=17, gap=2)) and grid.max() > 17


def test_models_without_latents_give_samples(run, pixelcnn, tmp_path):
    assert run("sample", pixelcnn, "--n", 1, "--out", tmp_path / "one.png")[0] == 0
    assert pixels_of(tmp_path / "one.png").shape == (4, 4, 1)
    assert set(np.unique(pixels_of(tmp_path / "one.png"))) <= {0, 255}


@pytest.mark.parametrize("options", [(), ("--spherical",)])
def test_a_strip_leads_from_one_image_to_the_other(run, glow, pictures, tmp_path, options):
    a, b, pixels = pictures
    out = tmp_path / "strip.png"
    code, said, errors = run("interpolate", glow, a, b, "--steps", 4, "--out", out, *options)
    assert (code, errors) == (0, "") and said == f"{out}: 4 images of 8x8 pixels\n"
    model = Glow.from_pretrained(glow)
    between = {"between": spherical} if options else {}
    expected = interpolate(model, *pixels, steps=4, **between)
    strip = pixels_of(out)
    assert np.array_equal(strip, image_grid(expected, 4, gap=2))
    assert np.array_equal(strip[:, :8], pixels[0].permute(1, 2, 0)) and strip.shape == (8, 38, 3)
    assert np.array_equal(strip[:, -8:], pixels[1].permute(1, 2, 0))


@pytest.mark.parametrize("strengths", [[], [1.0], [-1.0, 0.0, 0.5, 2.0]])
def test_edits_are_those_of_the_vector(run, glow, pictures, smile, tmp_path, strengths):
    path, vector = smile
    words = ["--strength", *strengths] if strengths else []
    out = tmp_path / "edit.png"
    code, said, _ = run("edit", glow, pictures[0], "--vector", path, "--out", out, *words)
    assert code == 0 and said.startswith(f"{out}: {'an image' if len(strengths) < 2 else '4 images'} of 8x8")
    edited = manipulate(Glow.from_pretrained(glow), pictures[2][:1], vector, strengths or [1.0])[:, 0]
    assert np.array_equal(pixels_of(out), image_grid(edited, 4, gap=2 if len(strengths) > 1 else 0))


def test_images_are_converted_with_a_word(run, classes, tmp_path, caplog):
    ramp = torch.arange(64).reshape(1, 1, 8, 8).byte()
    save_grid(tmp_path / "colour.png", ramp.expand(1, 3, 8, 8) * torch.tensor([4, 2, 1]).byte()[:, None, None])
    save_grid(tmp_path / "grey.png", ramp % 17, values=17)
    words = ("interpolate", classes, tmp_path / "colour.png", tmp_path / "grey.png", "--label", 1)
    assert run(*words, "--out", tmp_path / "strip.png")[0] == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'colour.png'}: colours turned to grey",
        f"{tmp_path / 'colour.png'}: 256 values of a pixel brought to 17",
    ]
    strip = pixels_of(tmp_path / "strip.png")
    assert np.array_equal(strip[:, -8:], pixels_of(tmp_path / "grey.png"))


@pytest.fixture
def wrong(glow, pictures, smile, tmp_path):
    """Commands with one thing wrong, by what it is."""
    a, b, _ = pictures
    vector, out = smile[0], ("--out", tmp_path / "out.png")
    Image.new("RGB", (9, 8)).save(tmp_path / "wide.png")
    (tmp_path / "text.png").write_text("To be or not to be")
    edit, blend, draw = ("edit", glow, a, "--vector", vector), ("interpolate", glow), ("sample", glow)
    return {
        "size": (*blend, a, tmp_path / "wide.png", *out),
        "no image": (*blend, tmp_path / "text.png", b, *out),
        "missing": (*blend, tmp_path / "none.png", b, *out),
        "folder": (*blend, tmp_path, b, *out),
        "steps": (*blend, a, b, "--steps", 1, *out),
        "number": (*draw, "--n", 0, *out),
        "columns": (*draw, "--columns", 0, *out),
        "temperature": (*draw, "--temperature", "-1", *out),
        "temperature NaN": (*draw, "--temperature", "nan", *out),
        "seed": (*draw, "--seed", -1, *out),
        "zoom": (*draw, "--zoom", 0, *out),
        "label": (*draw, "--label", 3, *out),
        "strength": (*edit, "--strength", "nan", *out),
        "strength too large": (*edit, "--strength", "1e300", *out),
        "no vector": ("edit", glow, a, "--vector", tmp_path / "none.safetensors", *out),
        "vector an image": ("edit", glow, a, "--vector", a, *out),
        "out not a png": (*draw, "--out", tmp_path / "out.jpg"),
        "out nowhere": (*draw, "--out", tmp_path / "none" / "out.png"),
        "out a folder": (*draw, "--out", tmp_path / "folder.png"),
        "out an input": (*edit, "--out", a),
        "no model": ("sample", tmp_path / "none", *out),
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "size": "wide.png: expected an image of 8x8 pixels, as the model has them, got 9x8",
        "no image": "text.png: not a readable image",
        "missing": "none.png: No such file",
        "folder": "Is a directory",
        "steps": "--steps expects at least 2, got 1",
        "number": "--n expects at least 1, got 0",
        "columns": "--columns expects at least 1, got 0",
        "temperature": "temperature of at least 0, got -1",
        "temperature NaN": "temperature of at least 0, got nan",
        "seed": "--seed expects",
        "zoom": "--zoom expects at least 1, got 0",
        "label": "has no classes, leave it out",
        "strength": "finite numbers",
        "strength too large": "not finite",
        "no vector": "none.safetensors: No such file",
        "vector an image": "a.png: truncated or not a safetensors file",
        "out not a png": "expected a file ending in .png",
        "out nowhere": "there is no folder",
        "out a folder": "expected a file to write, got a folder",
        "out an input": "would write over an input",
        "no model": "no such folder",
    }.items(),
)
def test_wrong_input_is_one_line_and_writes_nothing(refused, wrong, tmp_path, name, expected):
    (tmp_path / "folder.png").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert expected in refused(*wrong[name])
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("label", [(), ("--label", -1), ("--label", 3)])
def test_a_class_is_needed_in_range(refused, classes, tmp_path, label):
    message = refused("sample", classes, "--out", tmp_path / "out.png", *label)
    assert "has classes: expected --label 0 ... 2, got" in message


def test_a_vector_of_another_model_is_refused(refused, pictures, smile, tmp_path):
    other = make(tmp_path / "other", hidden=9)
    message = refused("edit", other, pictures[0], "--vector", smile[0], "--out", tmp_path / "out.png")
    assert "smile.safetensors: the attribute vector was made with the Glow " in message


def test_other_models_are_refused(refused, checkpoint, pixelcnn, pictures, smile, tmp_path):
    a, b, _ = pictures
    out = ("--out", tmp_path / "out.png")
    assert "holds a WaveGlow, which is no model of images" in refused("sample", checkpoint, *out)
    assert "interpolation expects a flow, which has latents, got a PixelCNN" in refused(
        "interpolate", pixelcnn, a, b, *out
    )
    assert "editing expects a flow" in refused("edit", pixelcnn, a, "--vector", smile[0], *out)


def test_a_full_disk_leaves_the_old_picture(refused, run, glow, tmp_path, small_disk):
    out = tmp_path / "grid.png"
    assert run("sample", glow, "--n", 9, "--out", out)[0] == 0
    before = out.read_bytes()
    with small_disk(500):
        assert "grid.png: File too large" in refused("sample", glow, "--n", 9, "--seed", 1, "--out", out)
    assert out.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["grid.png"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(refused, glow, tmp_path):
    assert "no CUDA device" in refused("sample", glow, "--device", "cuda", "--out", tmp_path / "out.png")

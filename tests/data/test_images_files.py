"""Image files as Pillow and NumPy make them, good and bad, alone and by the folder."""

import errno
import io
import logging
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from waveflow.data import load_images, read_image, to_values
from waveflow.data.image_folder import load_image_folder
from waveflow.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".gif", ".webp"])
@pytest.mark.parametrize("array", [GREY, COLOUR], ids=["grey", "colour"])
def test_lossless_files_give_their_pixels(suffix, array, tmp_path):
    if suffix == ".gif" and array is COLOUR:
        array = array // 128 * 255  # eight colours fit a palette
    path = save(tmp_path / f"a{suffix}", array, **({"lossless": True} if suffix == ".webp" else {}))
    pixels, changes = read_image(path, channels=1 if array is GREY else 3)
    expected = array[None] if array is GREY else array.transpose(2, 0, 1)
    assert pixels.dtype == torch.uint8 and np.array_equal(pixels.numpy(), expected)
    assert changes == ()


def test_channels_are_taken_as_they_are_or_converted_with_a_word(tmp_path):
    grey, colour = save(tmp_path / "g.png", GREY), save(tmp_path / "c.png", COLOUR)
    assert read_image(grey).pixels.shape == (1, 6, 9) and read_image(colour).pixels.shape == (3, 6, 9)
    pixels, changes = read_image(grey, channels=3)
    assert changes == ("grey turned to colour",) and np.array_equal(pixels.numpy(), np.stack([GREY] * 3))
    pixels, changes = read_image(colour, channels=1)
    luma = COLOUR @ [0.299, 0.587, 0.114]
    assert changes == ("colours turned to grey",) and np.abs(pixels[0].numpy() - luma).max() <= 1


def test_16_bits_are_brought_to_8_with_a_word(tmp_path):
    deep = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    pixels, changes = read_image(save(tmp_path / "a.png", deep))
    assert changes == ("16 bits brought to 8",) and pixels.tolist() == [[[0, 0, 1, 1, 128, 255]]]


def png(row, depth, kind, transparent=None):
    """Two pixels, kind 0 for grey and 2 for colour: Pillow writes no file of 16-bit colours, or with every tRNS."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    content = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, kind, 0, 0, 0))
    if transparent is not None:
        content += chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    content += chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


@pytest.mark.parametrize(
    ("depth", "row", "transparent"),
    [
        (2, bytes([0b01_10_0000]), 1),
        (4, bytes([0x3A]), 3),
        (8, bytes([3, 170]), 3),
        (16, struct.pack(">2H", 300, 170 * 257), 300),
    ],
)
def test_a_grey_named_as_transparent_is_laid_on_white(depth, row, transparent, tmp_path):
    (tmp_path / "a.png").write_bytes(png(row, depth, 0, [transparent]))
    for channels in (None, 1, 3):
        pixels, changes = read_image(tmp_path / "a.png", channels)
        assert "transparency laid on white" in changes and ("16 bits brought to 8" in changes) == (depth == 16)
        assert pixels[:, 0].tolist() == [[255, 170]] * (channels or 1)


def test_one_of_neighbouring_greys_of_16_bits_is_transparent(tmp_path):
    (tmp_path / "a.png").write_bytes(png(struct.pack(">2H", 300, 301), 16, 0, [301]))
    assert read_image(tmp_path / "a.png").pixels.tolist() == [[[1, 255]]]
    (tmp_path / "a.png").write_bytes(png(struct.pack(">2H", 300, 301), 16, 0, [302]))
    pixels, changes = read_image(tmp_path / "a.png")
    assert changes == ("16 bits brought to 8",) and pixels.tolist() == [[[1, 1]]]


def test_a_transparent_colour_of_16_bits_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(png(struct.pack(">6H", *range(6)), 16, 2, [0, 1, 2]))
    with pytest.raises(InputError, match=r"a.png: expected no colour named as transparent beside colours of 16 bits"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("content", "expected", "deep"),
    [
        (b"P5 2 1 65535\n" + struct.pack(">2H", 257 * 7, 65535), [[7, 255]], True),
        (b"P5\n# by a camera\n2 1 # 12 bits\n4095\n" + struct.pack(">2H", 0, 4095), [[0, 255]], True),
        (b"P2 2 1 65535\n1799 65535\n", [[7, 255]], True),
        (b"P6 2 1 65535\n" + struct.pack(">6H", 0, 65535, 1799, 0, 0, 65535), [[0, 0], [255, 0], [7, 255]], True),
        (b"P5 2 1 255\n\x07\xff", [[7, 255]], False),
        (b"P4 2 1\n\x40", [[255, 0]], False),
    ],
)
def test_pnm_files_of_16_bits_are_brought_to_8_with_a_word(content, expected, deep, tmp_path):
    (tmp_path / "a.ppm").write_bytes(content)
    pixels, changes = read_image(tmp_path / "a.ppm")
    assert pixels[:, 0].tolist() == expected and changes == (("16 bits brought to 8",) if deep else ())


def test_16_bit_colours_are_brought_to_8_with_a_word(tmp_path):
    row = struct.pack(">6H", 0, 65535, 257 * 7, 257 * 100, 0, 65535)
    (tmp_path / "a.png").write_bytes(png(row, depth=16, kind=2))
    pixels, changes = read_image(tmp_path / "a.png")
    assert changes == ("16 bits brought to 8",)
    assert pixels.permute(1, 2, 0).tolist() == [[[0, 255, 7], [100, 0, 255]]]


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparency_is_laid_on_white_with_a_word(mode, tmp_path):
    image = Image.new("RGBA" if mode == "P" else mode, (2, 1), (0, 0) if mode == "LA" else (0, 0, 0, 0))
    image.putpixel((1, 0), (90, 255) if mode == "LA" else (90, 90, 90, 255))
    (image.quantize() if mode == "P" else image).save(tmp_path / "a.png")
    pixels, changes = read_image(tmp_path / "a.png", channels=3)
    assert "transparency laid on white" in changes
    assert pixels[:, 0].T.tolist() == [[255] * 3, [90] * 3]


def test_an_alpha_that_hides_nothing_needs_no_word(tmp_path):
    opaque = np.concatenate([COLOUR, np.full((6, 9, 1), 255, np.uint8)], 2)
    pixels, changes = read_image(save(tmp_path / "a.png", opaque))
    assert changes == () and np.array_equal(pixels.numpy(), COLOUR.transpose(2, 0, 1))


def test_half_transparent_pixels_are_half_white(tmp_path):
    path = save(tmp_path / "a.png", np.array([[[0, 200, 100, 51]]], np.uint8))
    assert np.abs(read_image(path).pixels.reshape(3).numpy() - [204, 244, 224]).max() <= 1


def test_photographs_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # held on its side: turn by 90 degrees clockwise
    path = save(tmp_path / "a.png", COLOUR, exif=exif)
    assert np.array_equal(read_image(path).pixels.numpy(), np.rot90(COLOUR, -1).transpose(2, 0, 1))


def test_cmyk_and_frames_are_said(tmp_path):
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert read_image(tmp_path / "a.jpg").changes == ("CMYK turned to RGB",)
    frames = [Image.fromarray(np.full((4, 4), level, np.uint8)) for level in (0, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    pixels, changes = read_image(tmp_path / "a.gif", channels=1)
    assert "the first of 2 frames taken" in changes and (pixels == 0).all()


def test_size_cuts_the_middle_square(tmp_path):
    wide = np.zeros((40, 100), np.uint8)
    wide[:, 30:70] = 200
    pixels, changes = read_image(save(tmp_path / "a.png", wide), size=20)
    assert changes == ("brought from 100x40 to 20x20",)
    assert pixels.shape == (1, 20, 20) and (pixels == 200).all()
    assert read_image(save(tmp_path / "b.png", wide[:, :40]), size=40).changes == ()


@pytest.mark.parametrize("values", [2, 3, 17, 64, 256])
def test_values_that_were_spread_come_back(values):
    x = torch.arange(values).byte()
    spread = (x.double() * 255 / (values - 1)).round().byte()
    assert torch.equal(to_values(spread, values), x)


def encoded(file_format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, format=file_format)
    return buffer.getvalue()


BAD = {
    "empty": (b"", "an empty file"),
    "text": (b"To be or not to be", "not a readable image"),
    "truncated": (encoded()[:-40], "truncated|not a readable image"),
    "header only": (encoded()[:30], "truncated|not a readable image"),
    "damaged": (encoded()[:60] + b"?" * 20 + encoded()[80:], "not a readable image"),
    "PostScript": (encoded("EPS"), "not a readable image"),
    "another format": (encoded("PCX"), "not a readable image"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_files_that_are_no_images_are_refused(content, message, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_image(tmp_path / "a.png")
    assert str(tmp_path / "a.png") in str(caught.value) and "\n" not in str(caught.value)


def test_32_bits_are_refused(tmp_path):
    for array in (np.zeros((3, 3), np.float32), np.zeros((3, 3), np.int32)):
        with pytest.raises(InputError, match=r"a.tif: expected pixels of 8 or 16 bits, got 32"):
            read_image(save(tmp_path / "a.tif", array))


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match="not a readable image"):
        read_image(save(tmp_path / "a.png", GREY))


def test_paths_and_options_are_checked(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)
    path = save(tmp_path / "a.png", GREY)
    with pytest.raises(InputError, match=r"1 channel \(grey\) or 3 \(colour\), got 4"):
        read_image(path, channels=4)
    with pytest.raises(InputError, match="size of at least 1 pixel, got 0"):
        read_image(path, size=0)


@pytest.fixture
def folder(tmp_path):
    """Thirty images in two folders, image i filled with i."""
    for i in range(30):
        place = tmp_path / "images" / ("dogs" if i % 3 else "cats")
        place.mkdir(parents=True, exist_ok=True)
        save(place / f"{i:02}.png", np.full((4, 5, 3), i, np.uint8))
    return tmp_path / "images"


def test_a_folder_is_read_and_divided(folder):
    images = load_images(folder, progress=False)
    assert images.name == str(folder) and images.shape == (3, 4, 5) and images.values == 256
    assert images.classes == ("cats", "dogs") and images.skipped == []
    assert [len(part) for part in (images.train, images.validation, images.test)] == [25, 2, 3]
    parts = (images.train, images.validation, images.test)
    seen = torch.cat([part.images for part in parts])[:, 0, 0, 0]
    assert sorted(seen.tolist()) == list(range(30))
    assert torch.equal(torch.cat([part.labels for part in parts]), (seen % 3 > 0).long())


def test_a_flat_folder_has_no_classes(folder):
    for path in folder.glob("*/*.png"):
        path.rename(folder / path.name)
    images = load_images(folder, channels=1, progress=False)
    assert images.classes == () and images.train.labels is None and images.shape == (1, 4, 5)


def test_unreadable_files_are_skipped_named_and_counted(folder, caplog):
    (folder / "cats" / "bad.png").write_bytes(b"nonsense")
    (folder / "dogs" / "empty.JPG").write_bytes(b"")
    (folder / "cats" / "lost.png").symlink_to(folder / "nowhere.png")
    (folder / "cats" / "notes.txt").write_text("not an image, and not named as one")
    (folder / "cats" / ".hidden.png").write_text("")
    with caplog.at_level(logging.WARNING, logger="waveflow"):
        images = load_image_folder(folder, progress=False)
    assert [tuple(skipped) for skipped in images.skipped] == [
        ("cats/bad.png", "not a readable image (expected PNG, JPEG, BMP, GIF, TIFF, WEBP, PPM)"),
        ("cats/lost.png", "No such file or directory"),
        ("dogs/empty.JPG", "an empty file"),
    ]
    assert "skipped dogs/empty.JPG: an empty file" in caplog.text
    assert "skipped 3 of 33 images, 30 left" in caplog.text
    assert len(images.train) == 25


def unreadable(monkeypatch, closed):
    scandir = os.scandir

    def guarded(path):
        if os.fspath(path) == os.fspath(closed):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)


def test_folders_inside_that_cannot_be_read_are_named(folder, caplog, monkeypatch):
    for i in range(30):
        save(folder / "dogs" / f"more-{i:02}.png", np.zeros((4, 5, 3), np.uint8))
    unreadable(monkeypatch, folder / "cats")
    with caplog.at_level(logging.WARNING, logger="waveflow"):
        images = load_image_folder(folder, progress=False)
    assert [tuple(skipped) for skipped in images.skipped] == [("cats", "Permission denied")]
    assert "skipped folder cats: Permission denied" in caplog.text


def test_a_folder_that_is_empty_but_for_one_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    unreadable(monkeypatch, tmp_path / "closed")
    with pytest.raises(InputError, match=r"no image in .*; not readable: closed \(Permission denied\)"):
        load_image_folder(tmp_path, progress=False)


def test_what_was_converted_is_counted(folder, caplog):
    save(folder / "cats" / "grey.png", np.zeros((4, 5), np.uint8))
    save(folder / "cats" / "deep.png", np.zeros((4, 5), np.uint16))
    save(folder / "cats" / "large.png", np.zeros((40, 50, 3), np.uint8))
    with caplog.at_level(logging.WARNING, logger="waveflow"):
        images = load_image_folder(folder, size=4, progress=False)
    assert images.shape == (3, 4, 4)
    assert "of 33 images: 16 bits brought to 8 in 1, grey turned to colour in 2, size changed in 33" in caplog.text


def test_images_of_several_sizes_are_refused(folder):
    save(folder / "dogs" / "wide.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(InputError, match=r"one size, got 5x4 \(00.png\) and 6x4 \(wide.png\); --size N brings"):
        load_image_folder(folder, progress=False)


def test_folders_without_images_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no image in .*empty: expected files ending in .png"):
        load_images(tmp_path / "empty")
    (tmp_path / "empty" / "a.png").write_text("x")
    with pytest.raises(InputError, match=r"no image is left of 1; the first: a.png: not a readable image"):
        load_images(tmp_path / "empty", progress=False)
    with pytest.raises(InputError, match=r"expected a folder of images, got a file at .*a.png"):
        load_images(tmp_path / "empty" / "a.png")
    save(tmp_path / "empty" / "b.png", GREY)
    with pytest.raises(InputError, match="at least 20 images, to hold some of them out, got 1"):
        load_images(tmp_path / "empty", progress=False)

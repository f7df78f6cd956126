"""Grids and the PNG they become, read back by Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image

from waveflow.errors import InputError
from waveflow.images import image_grid, save_grid


def images(n, channels=3, height=4, width=5, values=256):
    return torch.randint(values, (n, channels, height, width), generator=torch.Generator().manual_seed(n)).byte()


@pytest.mark.parametrize(
    ("n", "columns", "size"), [(6, 3, (8, 15)), (7, 3, (12, 15)), (5, None, (8, 15)), (2, 9, (4, 10))]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_in_rows(n, columns, size, channels):
    batch = images(n, channels)
    grid = image_grid(batch, columns)
    assert grid.dtype == np.uint8 and grid.shape == (*size, channels)
    across = size[1] // 5
    for i in range(n):
        row, column = divmod(i, across)
        cell = grid[4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
        assert np.array_equal(cell.transpose(2, 0, 1), batch[i].numpy())
    assert not grid[4 * (n // across) :, 5 * (n % across) :].any() or n % across == 0


def test_zoom_repeats_pixels_and_gaps_are_black():
    batch = images(2).clamp(min=1)
    grid = image_grid(batch, zoom=3, gap=2)
    assert grid.shape == (12, 15 + 2 + 15, 3)
    assert not grid[:, 15:17].any() and grid[:, :15].all() and grid[:, 17:].all()
    assert np.array_equal(grid[1::3, 18::3].transpose(2, 0, 1), batch[1].numpy())
    column = image_grid(batch, columns=1, gap=2)
    assert column.shape == (4 + 2 + 4, 5, 3) and not column[4:6].any()
    assert np.array_equal(column[6:].transpose(2, 0, 1), batch[1].numpy())


@pytest.mark.parametrize(("values", "expected"), [(2, [0, 255]), (17, [round(255 * i / 16) for i in range(17)])])
def test_few_values_are_spread_from_black_to_white(values, expected):
    ramp = torch.arange(values).byte().reshape(1, 1, 1, values)
    assert image_grid(ramp, values=values).reshape(-1).tolist() == expected


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_png_gives_the_pixels_back(channels, mode, tmp_path):
    image = images(1, channels)
    save_grid(tmp_path / "a.png", image)
    save_grid(tmp_path / "b.png", image)
    with Image.open(tmp_path / "a.png") as read:
        assert read.mode == mode
        pixels = np.asarray(read).reshape(4, 5, channels)
    assert np.array_equal(pixels.transpose(2, 0, 1), image[0].numpy())
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_full_disk_leaves_what_was_there(tmp_path, small_disk):
    (tmp_path / "a.png").write_text("old")
    with small_disk(100), pytest.raises(OSError, match="too large") as caught:
        save_grid(tmp_path / "a.png", images(50))
    assert caught.value.filename == str(tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_text() == "old"


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        (images(2).float(), {}, r"got float32 \(2, 3, 4, 5\)"),
        (images(2)[0], {}, r"got uint8 \(3, 4, 5\)"),
        (images(2, channels=2), {}, r"got uint8 \(2, 2, 4, 5\)"),
        (images(2)[:0], {}, r"got uint8 \(0, 3, 4, 5\)"),
        (images(2).clamp(min=20), {"values": 17}, r"17 values expects pixels 0 ... 16, got one of \d+"),
        (images(2), {"values": 1}, "grid of 1 values"),
        (images(2), {"columns": 0}, "columns of at least 1, got 0"),
        (images(2), {"zoom": 0}, "zoom of at least 1, got 0"),
        (images(2), {"gap": -1}, "gap of at least 0, got -1"),
    ],
)
def test_bad_input_is_refused(batch, options, message):
    with pytest.raises(InputError, match=message):
        image_grid(batch, **options)

"""Tables: where they come from, how they are divided, what is refused."""

import math
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from waveflow.data import TABLES, TOYS, load_table, read_table, sample_toy
from waveflow.errors import InputError

UCI = Path(__file__).parents[3] / "shared" / "data" / "uci"


@pytest.fixture
def numbers():
    return np.random.default_rng(0).normal(size=(100, 3)) * [1, 10, 0.1] + [0, 5, -2]


def save(folder, name, array) -> Path:
    path = folder / name
    if name.endswith(".npy"):
        np.save(path, array)
    elif name.endswith(".npz"):
        np.savez(path, x=array)
    else:
        frame = pandas.DataFrame(array, columns=["a", "b", "c"][: array.shape[1]])
        frame.to_parquet(path) if name.endswith(".parquet") else frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.npy", "t.npz", "t.parquet"])
def test_files_give_their_numbers(name, numbers, tmp_path):
    values, columns = read_table(save(tmp_path, name, numbers))
    assert values.dtype == np.float64 and np.allclose(values, numbers, rtol=1e-15)
    assert columns == (["x1", "x2", "x3"] if name.startswith("t.n") else ["a", "b", "c"])


def test_npz_names_its_columns(numbers, tmp_path):
    np.savez(tmp_path / "t.npz", x=numbers, columns=["height", "width", "depth"])
    assert read_table(tmp_path / "t.npz")[1] == ["height", "width", "depth"]


@pytest.mark.parametrize("text", ["1,2\n3,4\n", "1;2\n3;4\n", "a\tb\n1\t2\n3\t4\n", "a, b\n1, 2\n3, 4\n"])
def test_csv_with_and_without_names_by_any_separator(text, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    values, columns = read_table(tmp_path / "t.csv")
    assert values.tolist() == [[1, 2], [3, 4]]
    assert columns == (["a", "b"] if "a" in text else ["x1", "x2"])


def test_table_is_divided_without_loss_and_always_alike(numbers, tmp_path):
    path = save(tmp_path, "t.npy", numbers)
    table, again = load_table(path), load_table(str(path))
    assert [len(part) for part in (table.train, table.validation, table.test)] == [81, 9, 10]
    rows = torch.cat([table.known, table.test])
    assert rows.dtype == torch.float32 and torch.equal(rows, torch.cat([again.known, again.test]))
    expected = torch.as_tensor(numbers, dtype=torch.float32)
    assert torch.equal(rows[rows[:, 0].argsort()], expected[expected[:, 0].argsort()])
    assert not torch.equal(rows, expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_are_counted_or_dropped(bad, numbers, tmp_path):
    numbers[[3, 7], 1] = bad
    numbers[7, 2] = bad
    path = save(tmp_path, "t.csv", numbers)
    with pytest.raises(InputError, match=r"2 of 100 rows hold values that are not finite \(in b, c\); --drop-nan"):
        load_table(path)
    table = load_table(path, drop_nan=True)
    assert table.dropped == 2 and len(table.known) + len(table.test) == 98


def test_constant_columns_are_named(numbers, tmp_path):
    numbers[:, 0], numbers[:, 2] = 4.2, 0
    with pytest.raises(InputError, match=r"constant over the rows to learn from: a, c$"):
        load_table(save(tmp_path, "t.csv", numbers))


def test_columns_that_float32_cannot_resolve_are_named(numbers, tmp_path):
    numbers[:, 1] += 1.6e9
    with pytest.raises(InputError, match=r"varies too little for float32, so subtract an offset first: b$"):
        load_table(save(tmp_path, "t.csv", numbers))


def test_columns_that_are_not_numeric_are_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("when,a,kind,b\n2020-01-01,1,x,2\n2020-01-02,1,y,oops\n")
    with pytest.raises(InputError, match=r"t.csv: .* not numeric: when, kind, b$"):
        read_table(path)


def test_columns_of_few_values_are_named_and_can_be_smoothed(numbers, tmp_path):
    numbers[:, 1] = 0.5 * np.arange(100).__mod__(4)
    path = save(tmp_path, "t.csv", numbers)
    assert load_table(path).quantised == ("b",)
    table, plain = load_table(path, dequantise=True), load_table(path)
    assert table.quantised == ()
    noise = torch.cat([table.known, table.test])[:, 1] % 0.5
    assert len(noise.unique()) == 100 and 0.2 < noise.mean() < 0.3 and noise.max() > 0.45
    assert table.known[:, 1].max() < 2
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(table, part)[:, [0, 2]], getattr(plain, part)[:, [0, 2]])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", b"1 2", "expected a file ending in .csv, .npy, .npz, .parquet"),
        ("t.csv", b"", "not a table in CSV"),
        ("t.csv", b"a,b\n1,2\n3,4,5,6\n", "not a table in CSV"),
        ("t.csv", b"\xff\xfe\x00", "not a table in CSV"),
        ("t.csv", b"a,b\n1,2\n", "expected at least 20 rows, got 1"),
        ("t.npy", b"nonsense", "not an array of numbers"),
        ("t.npz", b"nonsense", "not an archive of arrays"),
        ("t.npz", b"PK\x03\x04nonsense", "not an archive of arrays"),
        ("t.parquet", b"nonsense", "not a Parquet file"),
    ],
)
def test_files_that_are_no_tables_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_table(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), r"got float64 of shape \(5,\)"),
        (np.zeros((5, 2), complex), "got complex128"),
        (np.full((5, 2), "a"), "got <U1"),
        (np.full((5, 2), None), "not an array of numbers"),
    ],
)
def test_arrays_that_are_no_tables_are_refused(array, message, tmp_path):
    np.save(tmp_path / "t.npy", array)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.npy")


def test_archives_that_are_no_tables_are_refused(numbers, tmp_path):
    np.savez(tmp_path / "two.npz", a=numbers, b=numbers)
    with pytest.raises(InputError, match="expected an array named x, got a, b"):
        read_table(tmp_path / "two.npz")
    np.savez(tmp_path / "names.npz", x=numbers, columns=["a"])
    with pytest.raises(InputError, match="expected 3 names of columns, got 1"):
        read_table(tmp_path / "names.npz")


def test_names_and_paths_are_checked(tmp_path):
    with pytest.raises(InputError, match="'moon' is neither a file nor one of moons, rings,"):
        load_table("moon")
    with pytest.raises(InputError, match="power expects --path FILE"):
        load_table("power")
    with pytest.raises(InputError, match="--path belongs to power and miniboone, got it with moons"):
        load_table("moons", path="x.npz")
    with pytest.raises(FileNotFoundError):
        load_table(tmp_path / "none.csv")
    np.save(tmp_path / "few.npy", np.zeros((30, 3)))
    for name in ("power", "miniboone"):
        with pytest.raises(InputError, match=f"{name} expects .* columns .*, got 3"):
            load_table(name, path=tmp_path / "few.npy")


@pytest.mark.parametrize("name", [name for name in TABLES if name not in ("power", "miniboone")])
def test_every_named_table_loads(name):
    table = load_table(name)
    assert table.known.shape[1] == table.test.shape[1] == len(table.columns)
    assert table.known.isfinite().all() and table.test.isfinite().all()


@pytest.mark.parametrize("name", TOYS)
def test_toys_follow_their_seed_and_are_centred(name):
    points = sample_toy(name, 20_000, seed=3)
    assert points.shape == (20_000, 2) and np.array_equal(points, sample_toy(name, 20_000, seed=3))
    assert not np.array_equal(points, sample_toy(name, 20_000, seed=4))
    assert np.abs(points - ([0.5, 0.25] if name == "moons" else 0)).mean(0).max() < 3
    assert np.abs(points.mean(0) - ([0.5, 0.25] if name == "moons" else 0)).max() < 0.05


def test_toys_have_the_shapes_they_are_named_for():
    points = sample_toy("checkerboard", 5000)
    assert (np.floor(points).sum(1) % 2 == 0).all() and np.abs(points).max() <= 2
    assert len(np.unique(np.floor(points), axis=0)) == 8
    radius = np.linalg.norm(sample_toy("rings", 5000), axis=1)
    assert (np.abs(radius * 2 - np.round(radius * 2)) < 0.5).all() and 0.4 < np.quantile(radius, 0.1) < 0.6
    left = sample_toy("two-gaussians", 5000)
    left = left[left[:, 0] < 0]
    assert np.allclose(left.std(0), 0.5, atol=0.03) and np.allclose(left.mean(0), [-2, 0], atol=0.05)
    with pytest.raises(InputError, match="there is no toy 'moon', expected one of moons"):
        sample_toy("moon", 5)


@pytest.mark.skipif(not UCI.exists(), reason="the UCI parts are not here")
def test_power_is_prepared_as_in_the_papers():
    raw = np.load(UCI / "power_first37281.npz")["x"].astype(np.float64)
    table = load_table("power", UCI / "power_first37281.npz")
    assert len(table.columns) == 6 and len(table.test) == 3728 and len(table.validation) == 3355
    assert table.quantised == ("minute_of_day",)
    rows = torch.cat([table.known, table.test]).double().numpy()
    for i, (source, width) in enumerate(zip([0, 2, 4, 5, 6, 7], [0.001, 0.01, 1, 1, 1, 0], strict=True)):
        noise = np.sort(rows[:, i]).mean() - raw[:, source].mean()
        assert noise == pytest.approx(width / 2, abs=0.01 * width + 1e-6)


@pytest.mark.skipif(not UCI.exists(), reason="the UCI parts are not here")
def test_miniboone_keeps_its_order():
    raw = torch.as_tensor(np.load(UCI / "miniboone_first1523.npz")["x"])
    table = load_table("miniboone", UCI / "miniboone_first1523.npz")
    assert torch.equal(torch.cat([table.train, table.validation, table.test]), raw) and len(table.test) == 152

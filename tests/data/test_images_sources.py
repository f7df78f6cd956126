"""The named sources: against their files written by hand, against scikit-learn, and against the real ones if here."""

import gzip
import hashlib
import io
import os
import pickle
import pickletools
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from waveflow.data import Batches, load_images
from waveflow.errors import InputError

SHARED = Path(__file__).parents[3] / "shared" / "data"
RNG = np.random.default_rng(0)


def real(name):
    return pytest.mark.skipif(not (SHARED / name).exists(), reason=f"{name} is not here")


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    digits, theirs = load_images("digits"), load_digits()
    assert digits.shape == (1, 8, 8) and digits.values == 17 and len(digits.classes) == 10
    parts = (digits.train, digits.validation, digits.test)
    mine = {(p.images[i].numpy().tobytes(), int(p.labels[i])) for p in parts for i in range(len(p))}
    assert mine == {(x.astype(np.uint8).tobytes(), int(y)) for x, y in zip(theirs.images, theirs.target, strict=True)}
    assert sum(map(len, parts)) == len(theirs.images) == 1797


def test_photographs_keep_their_test_apart():
    from sklearn.datasets import load_sample_images

    photographs = load_images("photographs", size=24, seed=3)
    assert photographs.shape == (3, 24, 24) and len(photographs.train) == 2000
    assert "24x24 parts of two photographs" in photographs.note
    pictures = [picture.transpose(2, 0, 1) for picture in load_sample_images().images]
    for part, first in ((photographs.test, 640 - 96), (photographs.validation, 640 - 192)):
        assert len(part) == 2 * (427 // 24) * (96 // 24)
        squares = {
            p[:, top : top + 24, left : left + 24].tobytes()
            for p in pictures
            for top in range(0, 427 - 23, 24)
            for left in range(first, first + 96, 24)
        }
        assert {image.numpy().tobytes() for image in part.images} == squares
    assert photographs.train.pictures[0].shape == (3, 427, 640 - 192)
    assert np.array_equal(photographs.train.pictures[1].numpy(), pictures[1][:, :, : 640 - 192])
    batch = Batches(photographs.train, 8).batch(0)
    assert set(batch) == {"images"} and batch["images"].shape == (8, 3, 24, 24)
    with pytest.raises(InputError, match="photographs expects a size of 1 to 96 pixels, got 97"):
        load_images("photographs", size=97)


def idx(array, magic=None):
    header = struct.pack(">I", 0x800 + array.ndim if magic is None else magic)
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES, LABELS = RNG.integers(0, 256, (30, 5, 4), dtype=np.uint8), np.arange(30, dtype=np.uint8) % 10


def write_mnist(folder, compressed=True, dots=False, **replaced):
    contents = {
        "train-images-idx3-ubyte": idx(IMAGES),
        "train-labels-idx1-ubyte": idx(LABELS),
        "t10k-images-idx3-ubyte": idx(IMAGES[:7]),
        "t10k-labels-idx1-ubyte": idx(LABELS[:7]),
    } | replaced
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        name = name.replace("-idx", ".idx") if dots else name
        (folder / f"{name}{'.gz' if compressed else ''}").write_bytes(gzip.compress(content) if compressed else content)
    return folder


@pytest.mark.parametrize("options", [{}, {"compressed": False}, {"dots": True}])
@pytest.mark.parametrize("place", [".", "MNIST/raw"])
def test_mnist_is_read(options, place, tmp_path):
    write_mnist(tmp_path / place, **options)
    mnist = load_images("mnist", tmp_path)
    assert mnist.shape == (1, 5, 4) and mnist.values == 256 and mnist.note == "" and len(mnist.classes) == 10
    assert np.array_equal(mnist.train.images[:, 0].numpy(), IMAGES[:25])
    assert np.array_equal(mnist.validation.images[:, 0].numpy(), IMAGES[25:])
    assert np.array_equal(mnist.test.images[:, 0].numpy(), IMAGES[:7])
    assert mnist.train.labels.tolist() == LABELS[:25].tolist() and mnist.test.labels.tolist() == LABELS[:7].tolist()


def test_binary_and_flipped_sets_are_made_of_the_same(tmp_path):
    write_mnist(tmp_path)
    plain = load_images("mnist", tmp_path)
    binary = load_images("mnist", tmp_path, binary=True, flips=True, seed=4)
    assert binary.values == 2 and binary.train.values == 2 and binary.shape == (1, 5, 4)
    assert binary.name == "binary mnist" and "one draw of this project's own" in binary.note
    one, two = (torch.stack([binary.train.item(epoch, i)["images"] for i in range(25)]) for epoch in (0, 1))
    assert one.max() == 1 and not torch.equal(one, two)
    again = load_images("mnist", tmp_path, binary=True, flips=True, seed=5)
    assert torch.equal(binary.test.images, again.test.images)
    assert not torch.equal(one[0], again.train.item(0, 0)["images"])
    assert binary.test.labels.tolist() == plain.test.labels.tolist()
    flipped = load_images("mnist", tmp_path, flips=True)
    rows = [flipped.train.item(0, i)["images"] for i in range(25)]
    straight = [torch.equal(row, plain.train.images[i]) for i, row in enumerate(rows)]
    mirrored = [torch.equal(row, plain.train.images[i].flip(-1)) for i, row in enumerate(rows)]
    assert 0 < sum(straight) < 25 and all(a != b for a, b in zip(straight, mirrored, strict=True))
    assert torch.equal(flipped.test.images, plain.test.images)


TRAIN = "train-images-idx3-ubyte"
NO_TEST = {"t10k-images-idx3-ubyte": idx(IMAGES[:0]), "t10k-labels-idx1-ubyte": idx(LABELS[:0])}


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({TRAIN: idx(IMAGES)[:-1]}, r"train-images-idx3-ubyte: expected 600 bytes for \(30, 5, 4\), got 599"),
        ({TRAIN: idx(IMAGES, magic=0xD03)}, "not an idx file of bytes with 3 axes"),
        ({TRAIN: idx(IMAGES[0])}, "not an idx file of bytes with 3 axes"),
        ({TRAIN: b""}, "not an idx file"),
        ({TRAIN: idx(IMAGES[:29])}, "train has 29 images, but 30 labels"),
        ({TRAIN: idx(IMAGES[:, :4])}, r"got \(1, 4, 4\) to learn from, \(1, 5, 4\) to test"),
        (
            {"t10k-images-idx3-ubyte": idx(IMAGES[:0]), "t10k-labels-idx1-ubyte": idx(LABELS[:0])},
            "at least 6 images to learn from and 1 to test, got 30, 0",
        ),
    ],
)
def test_damaged_mnist_is_refused(replaced, message, tmp_path):
    write_mnist(tmp_path, compressed=False, **replaced)
    with pytest.raises(InputError, match=message) as caught:
        load_images("mnist", tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_missing_and_badly_compressed_mnist_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected MNIST's train-images-idx3-ubyte or \S+.gz, found neither"):
        load_images("mnist", tmp_path)
    write_mnist(tmp_path)
    path = tmp_path / f"{TRAIN}.gz"
    for content in (b"nonsense", path.read_bytes()[:50], b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz: (damaged|not an idx)"):
            load_images("mnist", tmp_path)


def python2(batch):
    """A pickle as Python 2 wrote it: strings where there are bytes, protocol 2."""
    content = bytearray(pickle.dumps(batch, protocol=3))
    content[1] = 2
    for opcode, _, position in pickletools.genops(bytes(content)):
        if opcode.name in ("BINBYTES", "SHORT_BINBYTES"):
            content[position] = ord("T" if opcode.name == "BINBYTES" else "U")
    return bytes(content)


def cifar_batch(number, n=12):
    rng = np.random.default_rng(number)
    data, labels = rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, 10, n).tolist()
    return {b"batch_label": b"training batch", b"labels": labels, b"data": data, b"filenames": [b"a.png"] * n}


def write_cifar(folder, dumps=python2):
    folder.mkdir(parents=True, exist_ok=True)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    batches = [cifar_batch(i) for i in range(6)]
    for name, batch in zip(names, batches, strict=True):
        (folder / name).write_bytes(dumps(batch))
    return batches


def by_pixels(parts):
    return {(p.images[i].numpy().tobytes(), int(p.labels[i])) for p in parts for i in range(len(p))}


@pytest.mark.parametrize("dumps", [python2, lambda batch: pickle.dumps(batch, protocol=3)], ids=["Python 2", "3"])
@pytest.mark.parametrize("place", [".", "cifar-10-batches-py"])
def test_python_batches_are_read(dumps, place, tmp_path):
    batches = write_cifar(tmp_path / place, dumps)
    cifar = load_images("cifar10", tmp_path)
    assert cifar.shape == (3, 32, 32) and cifar.values == 256 and cifar.classes[3] == "cat"
    assert np.array_equal(cifar.test.images.numpy(), batches[5][b"data"].reshape(-1, 3, 32, 32))
    assert cifar.test.labels.tolist() == batches[5][b"labels"]
    rows = [(row.tobytes(), label) for b in batches[:5] for row, label in zip(b[b"data"], b[b"labels"], strict=True)]
    assert by_pixels([cifar.train, cifar.validation]) == set(rows)
    assert (len(cifar.train), len(cifar.validation)) == (54, 6)
    assert cifar.note == "60 of 50,000 training and 12 of 10,000 test images, exact pixels"


def test_python_2_is_what_the_test_writes():
    """The original begins so."""
    content = python2(cifar_batch(1))
    assert content[:4] == b"\x80\x02}q" and b"U\x0bbatch_label" in content and b"numpy" in content


class _Payload:
    def __reduce__(self):
        return os._exit, (13,)


class _Shell:
    def __reduce__(self):
        return np.load, ("x.npy",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(_Payload()), r"it wants to import (posix|nt|os)._exit"),
        (pickle.dumps({b"data": _Shell(), b"labels": []}), r"it wants to import numpy.*load"),
        (pickle.dumps({"data": 1}), "expected an array named data"),
        (pickle.dumps([1, 2]), "expected an array named data"),
        (python2(cifar_batch(1) | {b"data": np.zeros((12, 3072))}), "an array of other than bytes"),
        (python2(cifar_batch(1) | {b"data": np.array([None] * 12)}), "an array of other than bytes"),
        (python2(cifar_batch(1) | {b"data": np.zeros((12, 3000), np.uint8)}), r"12 rows of 3072 .* got \(12, 3000\)"),
        (python2(cifar_batch(1) | {b"labels": [1] * 11}), "11 rows of 3072"),
        (python2(cifar_batch(1) | {b"labels": [-1] * 12}), "12 rows of 3072"),
        (python2(cifar_batch(1) | {b"labels": [10] * 12}), r"labels 0 ... 9, got 10"),
        (python2(cifar_batch(1))[:-500], "damaged or not a pickle"),
        (b"nonsense", "damaged or not a pickle"),
        (b"", "damaged or not a pickle"),
    ],
)
def test_other_batches_are_refused_and_run_nothing(content, message, tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_images("cifar10", tmp_path)
    assert "\n" not in str(caught.value)


def test_incomplete_batches_are_refused(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_2").unlink()
    (tmp_path / "data_batch_5").unlink()
    with pytest.raises(InputError, match="CIFAR-10 is not whole, data_batch_2, data_batch_5 missing"):
        load_images("cifar10", tmp_path)


def jpegs(arrays):
    files = []
    for array in arrays:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, format="JPEG", quality=95, subsampling=0)
        files.append(buffer.getvalue())
    offsets = np.cumsum([0, *map(len, files)])
    return {"blob": np.frombuffer(b"".join(files), np.uint8), "offsets": offsets}


def smooth(n, *shape):
    return np.stack([np.full(shape, 10 * i % 256, np.uint8) for i in range(n)])


def write_npz(folder):
    images, labels = RNG.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), np.arange(40, dtype=np.uint8) % 10
    for part, n in (("train", 40), ("test", 8)):
        np.savez(folder / f"{part}_lossless.npz", images=images[:n], labels=labels[:n], index=np.arange(n))
        np.savez(folder / f"{part}_jpeg.npz", **jpegs(smooth(n, 32, 32, 3)), labels=labels[:n], index=np.arange(n))
    return images, labels


def test_exact_parts_and_jpeg_copies_are_kept_apart(tmp_path):
    images, labels = write_npz(tmp_path)
    exact, copies = load_images("cifar10", tmp_path), load_images("cifar10-jpeg", tmp_path, progress=False)
    assert np.array_equal(exact.test.images.numpy(), images[:8].transpose(0, 3, 1, 2))
    assert by_pixels([exact.train, exact.validation]) == {
        (x.transpose(2, 0, 1).tobytes(), int(y)) for x, y in zip(images, labels, strict=True)
    }
    assert exact.note == "40 of 50,000 training and 8 of 10,000 test images, exact pixels"
    assert "JPEG copies: likelihoods compare with nothing published" in copies.note
    assert (copies.test.images.int() - torch.from_numpy(smooth(8, 3, 32, 32)).int()).abs().max() <= 1
    assert copies.test.labels.tolist() == labels[:8].tolist()
    (tmp_path / "train_lossless.npz").unlink()
    with pytest.raises(InputError, match=r"found neither; .*; JPEG copies are there, as cifar10-jpeg"):
        load_images("cifar10", tmp_path)
    (tmp_path / "train_jpeg.npz").unlink()
    with pytest.raises(InputError, match=r"expected train_jpeg.npz and test_jpeg.npz, found none"):
        load_images("cifar10-jpeg", tmp_path)


def test_faces_are_read_and_brought_to_a_size(tmp_path):
    smile = np.arange(25, dtype=np.uint8) // 13
    np.savez(tmp_path / "faces_smile.npz", **jpegs(smooth(25, 64, 64)), smile=smile)
    faces = load_images("faces", tmp_path, progress=False)
    assert faces.shape == (1, 64, 64) and faces.classes == ("neutral", "smiling")
    assert [len(part) for part in (faces.train, faces.validation, faces.test)] == [21, 2, 2]
    for part in (faces.train, faces.validation, faces.test):
        assert torch.equal((part.images[:, 0, 0, 0] >= 130).long(), part.labels)
    noise = RNG.integers(0, 256, (25, 64, 64), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", **jpegs(noise), smile=smile)
    large, small = (load_images("faces", tmp_path / "noise.npz", size=size, progress=False) for size in (None, 16))
    mean = torch.nn.functional.avg_pool2d(large.train.images.double(), 4)
    assert (small.train.images - mean).abs().max() <= 1
    with pytest.raises(InputError, match="faces expects a size of 1 to 64 pixels, got 65"):
        load_images("faces", tmp_path, size=65)


GOOD = {**jpegs(smooth(25, 64, 64)), "smile": np.zeros(25, np.uint8)}


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"smile": GOOD["smile"][:24]}, r"a label for each of 25 images, got uint8 \(24,\)"),
        ({"smile": GOOD["smile"] + 2}, "expected smile to be 0 or 1, got 2"),
        ({"smile": GOOD["smile"] / 2}, "a label for each of 25 images, got float64"),
        ({"offsets": GOOD["offsets"][::-1]}, "offsets in it, which ascend"),
        ({"offsets": GOOD["offsets"] + 10**6}, "offsets in it, which ascend"),
        ({"offsets": GOOD["offsets"] * 1.0}, "offsets in it, which ascend"),
        ({"blob": GOOD["blob"] * 0}, "image 0 is not a readable JPEG"),
        (jpegs([*smooth(24, 64, 64), smooth(1, 60, 64)[0]]), r"one size, image 24 is \(1, 60, 64\), not \(1, 64, 64\)"),
        ({"smile": np.array([None] * 25)}, "not a whole npz archive"),
    ],
)
def test_other_archives_are_refused(replaced, message, tmp_path):
    np.savez(tmp_path / "f.npz", **(GOOD | replaced))
    with pytest.raises(InputError, match=message) as caught:
        load_images("faces", tmp_path / "f.npz", progress=False)
    assert "f.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_an_archive_with_damaged_bytes_is_refused(tmp_path):
    path = tmp_path / "f.npz"
    np.savez_compressed(path, **GOOD)
    content = bytearray(path.read_bytes())
    content[400:460] = bytes(byte ^ 0xFF for byte in content[400:460])
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"f.npz: not a whole npz archive"):
        load_images("faces", path, progress=False)


def test_files_that_are_no_archives_are_refused(tmp_path):
    path = tmp_path / "f.npz"
    with pytest.raises(FileNotFoundError):
        load_images("faces", path)
    np.savez(path, blob=GOOD["blob"])
    with pytest.raises(InputError, match="expected arrays blob, offsets, smile, got blob"):
        load_images("faces", path)
    np.savez(path, **GOOD)
    for content in (b"nonsense", b"", path.read_bytes()[:-30], pickle.dumps(_Payload())):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"f.npz: not a whole npz archive"):
            load_images("faces", path)
    with open(path, "wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(InputError, match=r"f.npz: expected an npz archive, got a single array"):
        load_images("faces", path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "minst"}, "'minst' is neither a folder nor one of digits, photographs, mnist"),
        ({"data": "mnist"}, "mnist expects --path, the folder that holds it"),
        ({"data": "faces"}, "faces expects --path, the npz file that holds it"),
        (
            {"data": "digits", "path": "x"},
            "--path belongs to mnist, .* and faces, got it with digits",
        ),
        ({"data": ".", "path": "x"}, "--path belongs to"),
        ({"data": "digits", "size": 8}, "--size belongs to photographs, faces and folders, got it with digits"),
        ({"data": "digits", "channels": 1}, "--channels belongs to folders, got it with digits"),
        ({"data": "digits", "seed": -1}, "a seed of at least 0, got -1"),
        ({"data": "mnist", "path": "/no/such"}, "/no/such"),
        ({"data": "cifar10", "path": "/no/such"}, "expected a folder with CIFAR-10, got nothing at /no/such"),
    ],
)
def test_names_and_options_are_checked(arguments, message):
    with pytest.raises(InputError, match=message):
        load_images(**arguments)


@real("mnist")
def test_the_real_mnist():
    mnist = load_images("mnist", SHARED / "mnist", binary=True)
    assert [len(part) for part in (mnist.train, mnist.validation, mnist.test)] == [50_000, 10_000, 10_000]
    assert mnist.shape == (1, 28, 28)
    assert mnist.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert mnist.test.images.float().mean().item() == pytest.approx(33.791 / 255, abs=2e-4)
    assert hashlib.sha256(mnist.test.images.numpy().tobytes()).hexdigest().startswith("e98f879c654cd0db")


@real("cifar10")
def test_the_real_cifar10():
    cifar = load_images("cifar10", SHARED / "cifar10")
    assert [len(part) for part in (cifar.train, cifar.validation, cifar.test)] == [4934, 548, 500]
    assert "5,482 of 50,000" in cifar.note
    assert [cifar.classes[i] for i in cifar.test.labels[:4]] == ["cat", "ship", "ship", "airplane"]


@real("faces_smile")
def test_the_real_faces():
    faces = load_images("faces", SHARED / "faces_smile", size=8, progress=False)
    labels = torch.cat([part.labels for part in (faces.train, faces.validation, faces.test)])
    assert len(labels) == 13_158 and labels.sum() == 3685
    assert 0.24 < faces.test.labels.float().mean() < 0.32

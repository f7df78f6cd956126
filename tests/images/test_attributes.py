"""Attribute vectors against the mean pixels that a rotation turns them from."""

import copy

import pytest
import safetensors.torch
import torch

from waveflow.errors import InputError
from waveflow.images import AttributeVector, attribute_vector, fingerprint, manipulate


@pytest.fixture
def images():
    return torch.randint(80, 160, (10, 1, 4, 4), generator=torch.Generator().manual_seed(2)).byte()


HAS = torch.tensor([1, 0, 0, 1, 1, 0, 1, 0, 0, 1]).bool()


def brighter(images):
    """Images of which those with the attribute are brighter by exactly 20 than their partners without."""
    return torch.cat([images, images + 20]), torch.tensor([0] * len(images) + [1] * len(images))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_vector_is_the_difference_of_mean_latents(rotation, images, batch_size):
    model = rotation()
    vector = attribute_vector(model, images, HAS, batch_size=batch_size)
    assert max(model.batches) <= batch_size
    pixels = images[HAS].double().mean(0) - images[~HAS].double().mean(0)
    expected = (pixels.flatten() @ model.q.T).reshape(1, 4, 4)
    assert vector.vector.shape == (1, 4, 4) and torch.allclose(vector.vector.double(), expected, atol=1e-4)
    assert vector.model == "Rotation" and len(vector.fingerprint) == 64


@pytest.mark.parametrize("has", [HAS, HAS.long(), HAS.byte()])
def test_marks_may_be_bool_or_numbers(rotation, images, has):
    expected = attribute_vector(rotation(), images, HAS).vector
    assert torch.equal(attribute_vector(rotation(), images, has).vector, expected)


def test_labels_go_with_their_images(rotation, images):
    labels = torch.arange(10) % 3
    vector = attribute_vector(rotation(), images, HAS, label=labels, batch_size=2).vector
    shift = 10.0 * (labels[HAS].double().mean() - labels[~HAS].double().mean())
    assert torch.allclose(vector - attribute_vector(rotation(), images, HAS).vector, shift.float(), atol=1e-4)


def test_images_gain_what_the_vector_says(rotation, images):
    model = rotation()
    vector = attribute_vector(model, *brighter(images))
    edited = manipulate(model, images, vector, [-1.0, 0.0, 0.5, 1.0], batch_size=7)
    assert edited.dtype == torch.uint8 and edited.shape == (4, *images.shape)
    for image, change in zip(edited, (-20, 0, 10, 20), strict=True):
        assert torch.equal(image, images + change)
    assert torch.equal(manipulate(model, images, vector), images + 20)
    assert torch.equal(manipulate(model, images, vector, 0.5), images + 10)
    assert torch.equal(manipulate(model, images, vector, [1.0, 2.0], label=torch.arange(10))[0], images + 20)


def test_a_file_gives_the_vector_back(rotation, images, tmp_path):
    vector = attribute_vector(rotation(), images, HAS)
    vector.save(tmp_path / "v.safetensors")
    read = AttributeVector.load(tmp_path / "v.safetensors")
    assert torch.equal(read.vector, vector.vector)
    assert (read.model, read.fingerprint) == (vector.model, vector.fingerprint)
    assert [path.name for path in tmp_path.iterdir()] == ["v.safetensors"]


def test_another_model_is_refused(rotation, images):
    vector = attribute_vector(rotation(), images, HAS)
    with pytest.raises(InputError, match=r"made with the Rotation \w{8}, and means nothing to the Rotation \w{8}"):
        manipulate(rotation(seed=1), images, vector)
    other = AttributeVector(vector.vector, "Glow", vector.fingerprint)
    with pytest.raises(InputError, match="made with the Glow"):
        other.require(rotation())
    short = AttributeVector(vector.vector[:, :2], "Rotation", vector.fingerprint)
    with pytest.raises(InputError, match=r"expects a vector \(1, 4, 4\), got \(1, 2, 4\)"):
        manipulate(rotation(), images, short)


def test_a_fingerprint_is_of_the_weights_alone(rotation):
    model = rotation()
    assert fingerprint(model) == fingerprint(copy.deepcopy(model)) == fingerprint(copy.deepcopy(model).float())
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.q[3, 3] += 1e-3
    assert fingerprint(changed) != fingerprint(model)


def test_one_class_alone_is_refused(rotation, images):
    for has, count in ((HAS | True, 10), (HAS & False, 0)):
        with pytest.raises(InputError, match=f"images with the attribute and images without it, got {count} of 10"):
            attribute_vector(rotation(), images, has)
    with pytest.raises(InputError, match="got 0 of 0"):
        attribute_vector(rotation(), images[:0], HAS[:0])


@pytest.mark.parametrize(
    ("has", "message"),
    [
        (HAS[:9], r"a mark for each of 10 images, got \(9,\)"),
        (HAS.float(), "marks that are bool"),
        (2 * HAS.long(), "marks that are bool"),
    ],
)
def test_bad_marks_are_refused(rotation, images, has, message):
    with pytest.raises(InputError, match=message):
        attribute_vector(rotation(), images, has)


@pytest.mark.parametrize("strength", [float("nan"), [0.0, float("inf")], [], [[1.0]]])
def test_bad_strengths_are_refused(rotation, images, strength):
    vector = attribute_vector(rotation(), images, HAS)
    with pytest.raises(InputError, match="one or several strengths, finite numbers"):
        manipulate(rotation(), images, vector, strength)


def test_models_without_latents_are_refused(rotation, images):
    vector = attribute_vector(rotation(), images, HAS)
    for call in (lambda m: attribute_vector(m, images, HAS), lambda m: manipulate(m, images, vector)):
        with pytest.raises(InputError, match="expects a flow, which has latents, got a Linear"):
            call(torch.nn.Linear(1, 1))


def test_bad_files_are_refused(rotation, images, tmp_path):
    path = tmp_path / "v.safetensors"
    with pytest.raises(FileNotFoundError):
        AttributeVector.load(path)
    with pytest.raises(IsADirectoryError):
        AttributeVector.load(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"v.safetensors: truncated or not"):
        AttributeVector.load(path)
    path.write_bytes(safetensors.torch.save({"weight": torch.zeros(3)}))
    with pytest.raises(InputError, match="not an attribute vector"):
        AttributeVector.load(path)
    vector = attribute_vector(rotation(), images, HAS)
    vector.save(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match="truncated or not"):
        AttributeVector.load(path)
    AttributeVector(vector.vector / 0, "Rotation", vector.fingerprint).save(path)
    with pytest.raises(InputError, match="not finite"):
        AttributeVector.load(path)

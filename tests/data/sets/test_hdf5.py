"""Images under the keys of an HDF5 file, as ISIC 2024 has them."""

import sys

import h5py
import numpy as np
import pytest

from dermsynth.errors import BrokenImageError, InputError
from tests.data.sets.test_decoding import colours, encoded, jpeg, resized


@pytest.fixture
def file(tmp_path):
    """One file whose images are kept in the ways that are seen, and in ways that must not be followed."""
    path = tmp_path / "train-image.hdf5"
    picture = encoded(colours(), "PNG")
    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["secret"] = np.void(picture)
    with h5py.File(path, "w") as made:
        made["ISIC_void"] = np.void(picture)
        made["ISIC_bytes"] = np.frombuffer(picture, np.uint8)
        made["ISIC_cut"] = np.void(jpeg(colours())[:-9])
        made["ISIC_text"] = "not an image"
        made["ISIC_elsewhere"] = h5py.ExternalLink("other.hdf5", "secret")
        made.create_dataset("ISIC_outside", (10,), "u1", external=[(str(tmp_path / "secret.png"), 0, 10)])
        made.create_group("ISIC_group")
        made.create_dataset("ISIC_huge", (1 << 40,), "u1", chunks=(1 << 16,))
        layout = h5py.VirtualLayout((len(picture),), "u1")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.hdf5"), "secret", (len(picture),))
        made.create_virtual_dataset("ISIC_virtual", layout)
    (tmp_path / "secret.png").write_bytes(picture)
    return path


@pytest.mark.parametrize("member", ["ISIC_void", "ISIC_bytes"])
def test_an_image_is_read_by_its_key(file, member):
    np.testing.assert_array_equal(resized(file, 24, member), colours())


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("ISIC_none", "no image of that key"),
        ("ISIC_elsewhere", "no image of that key lies in the file itself"),
        ("ISIC_outside", "no plain data set"),
        ("ISIC_virtual", "no plain data set"),
        ("ISIC_group", "no plain data set"),
        ("ISIC_huge", "no more than"),
        ("ISIC_cut", "truncated"),
        ("ISIC_text", "not a JPEG or PNG"),
    ],
)
def test_what_is_no_image_in_the_file_itself_is_named(file, member, message):
    with pytest.raises(BrokenImageError, match=rf"train-image\.hdf5\[{member}\]: .*{message}"):
        resized(file, 24, member)


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_what_is_no_hdf5_file_is_named(tmp_path, content):
    path = tmp_path / "train-image.hdf5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BrokenImageError, match=r"train-image\.hdf5\[ISIC_1\]: cannot be read from the HDF5 file"):
        resized(path, 24, "ISIC_1")


def test_without_h5py_it_says_what_to_install(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="pip install h5py") as error:
        resized(file, 24, "ISIC_void")
    assert not isinstance(error.value, BrokenImageError)

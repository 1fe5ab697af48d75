"""DICOM photographs against the formulas of the standard, written out here."""

import io

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from dermsynth.errors import BrokenImageError, InputError
from tests.data.sets.test_decoding import colours, jpeg, resized


def dicom(pixels, kind="MONOCHROME2", bits=8, data=None, syntax=ExplicitVRLittleEndian, **extra):
    """The bytes of a DICOM file around pixels `[H, W]` or `[H, W, 3]`, or around `data` in another syntax."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = syntax
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = SecondaryCaptureImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = "1.2.3"
    file.Rows, file.Columns = pixels.shape[:2]
    file.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    if pixels.ndim == 3:
        file.PlanarConfiguration = 0
    file.PhotometricInterpretation = kind
    file.BitsAllocated = 8 * pixels.dtype.itemsize
    file.BitsStored, file.HighBit = bits, bits - 1
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    file.PixelData = data or pixels.tobytes()
    file["PixelData"].VR = "OB" if file.BitsAllocated == 8 else "OW"
    for name, value in extra.items():
        setattr(file, name, value)
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def load(tmp_path):
    def read(data, size=20):
        path = tmp_path / "ISIC_0000001.dcm"
        path.write_bytes(data)
        return resized(path, size)

    return read


def greys(dtype, low, high):
    return np.random.default_rng(0).integers(low, high, (20, 30), dtype=dtype)


def test_grey_of_eight_bits_is_shown_as_it_is_and_monochrome1_inverted(load):
    pixels = greys(np.uint8, 0, 256)
    np.testing.assert_array_equal(load(dicom(pixels)), np.stack([pixels] * 3, axis=2))
    np.testing.assert_array_equal(load(dicom(pixels, "MONOCHROME1")), np.stack([255 - pixels] * 3, axis=2))


def test_without_a_window_the_range_of_the_stored_bits_is_shown(load):
    pixels = greys(np.uint16, 0, 1 << 12)
    assert np.abs(load(dicom(pixels, bits=12))[:, :, 0] - pixels * 255.0 / 4095).max() <= 0.5
    signed = greys(np.int16, -(1 << 11), 1 << 11)
    assert np.abs(load(dicom(signed, bits=12))[:, :, 0] - (signed + 2048.0) * 255 / 4095).max() <= 0.5


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -1024)])
def test_the_window_is_that_of_the_standard(load, kind, slope, intercept):
    pixels = greys(np.uint16, 0, 1 << 12)
    centre, width = 1500, 800
    data = dicom(
        pixels,
        kind,
        12,
        WindowCenter=centre,
        WindowWidth=width,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
    )
    # PS3.3, C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5) × 255, clipped; x after the rescale.
    x = pixels * float(slope) + intercept
    expected = np.clip(((x - (centre - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)
    if kind == "MONOCHROME1":
        expected = 255 - expected
    assert np.abs(load(data)[:, :, 0] - expected).max() <= 1
    assert 0 < (expected > 0).mean() < 1


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_in_either_order(load, planar):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    data = pixels.transpose(2, 0, 1).tobytes() if planar else pixels.tobytes()
    np.testing.assert_array_equal(load(dicom(pixels, "RGB", data=data, PlanarConfiguration=planar)), pixels)


def test_ybr_full_is_converted(load):
    ybr = np.random.default_rng(0).integers(60, 190, (20, 30, 3), dtype=np.uint8)
    y, b, r = np.moveaxis(ybr.astype(float), 2, 0)
    # PS3.3, C.7.6.3.1.2
    green = y - 0.344136 * (b - 128) - 0.714136 * (r - 128)
    expected = np.stack([y + 1.402 * (r - 128), green, y + 1.772 * (b - 128)], axis=2).clip(0, 255)
    assert np.abs(load(dicom(ybr, "YBR_FULL")) - expected).max() <= 1.5


@pytest.mark.parametrize("kind", ["YBR_FULL_422", "YBR_FULL"])
def test_a_jpeg_inside_is_the_jpeg_decoded_reduced(load, kind, monkeypatch):
    pixels = colours(shape=(200, 300, 3))
    inside = jpeg(pixels)
    data = dicom(pixels, kind, data=encapsulate([inside]), syntax=JPEGBaseline8Bit)
    got = load(data)
    assert got.shape == (20, 30, 3)
    expected = pixels.reshape(20, 10, 30, 10, 3).mean(axis=(1, 3))
    assert np.abs(got - expected).mean() < 3
    with pytest.raises(BrokenImageError, match="truncated"):
        load(dicom(pixels, kind, data=encapsulate([inside[:-500]]), syntax=JPEGBaseline8Bit))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dicom(greys(np.uint8, 0, 256), NumberOfFrames=2, data=bytes(1200)), "holds 2 frames"),
        (dicom(greys(np.uint8, 0, 256), "HSV"), "photometric interpretation HSV"),
        (dicom(greys(np.uint8, 0, 256), Rows=60000, Columns=60000), "declares 60000 × 60000 pixels"),
        (dicom(greys(np.uint8, 0, 256), Rows=5000, Columns=5000), "declares 5000 × 5000 pixels in"),
        (dicom(greys(np.uint8, 0, 256))[:-100], "damaged DICOM"),
        (dicom(greys(np.uint8, 0, 256))[:200], "damaged DICOM"),
        (bytes(128) + b"DICM", "damaged DICOM"),
    ],
)
def test_what_is_no_whole_photograph_is_named(load, data, message):
    with pytest.raises(BrokenImageError, match=rf"ISIC_0000001\.dcm: .*{message}"):
        load(data)


def test_without_pydicom_it_says_what_to_install(load, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(InputError, match="pip install 'pydicom>=3'") as error:
        load(dicom(greys(np.uint8, 0, 256)))
    assert not isinstance(error.value, BrokenImageError)

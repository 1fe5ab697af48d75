"""Decoding: completeness of files, orientation, depth, and the reduced decode against a full one."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from dermsynth.data import images
from dermsynth.errors import InputError


@pytest.fixture
def quarters():
    """A picture whose four corners differ, so that every turn and flip of it is another picture."""
    picture = np.zeros((96, 160, 3), np.uint8)
    picture[:48, :80], picture[48:, 80:], picture[48:, :80] = (250, 10, 10), (10, 10, 250), (10, 250, 10)
    return picture


def jpeg(picture, **options):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", **{"quality": 98, "subsampling": 0, **options})
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [96, 48, 30, 12])  # whole, and reduced to a half, a half and an eighth
def test_exif_orientation_is_honoured_at_every_scale(tmp_path, quarters, suffix, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    options = {"quality": 98, "subsampling": 0} if suffix == "jpg" else {}
    Image.fromarray(quarters).save(path, exif=exif, **options)

    got = images.load_resized(path, size)

    upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    expected = np.asarray(upright.resize(got.shape[1::-1], Image.Resampling.BOX))
    assert min(got.shape[:2]) == size
    assert got.shape[1] / got.shape[0] == pytest.approx(upright.width / upright.height, rel=0.05)
    assert np.abs(got.astype(int) - expected).mean() < 4


def test_a_photograph_is_decoded_reduced_and_looks_like_the_full_decode(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 255, (15, 20, 3), np.uint8), (800, 600), interpolation=cv2.INTER_CUBIC)
    path = tmp_path / "large.jpg"
    path.write_bytes(jpeg(smooth))
    flags = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, flag: flags.append(flag) or decode(data, flag))

    got = images.load_resized(path, 70)

    assert flags == [cv2.IMREAD_REDUCED_COLOR_8]  # 600 / 8 = 75 still covers 70
    reference = np.asarray(Image.open(path).resize(got.shape[1::-1], Image.Resampling.BOX))
    assert got.shape == (70, 93, 3)
    assert np.abs(got.astype(int) - reference).mean() < 2
    images.load_resized(path, 76)
    assert flags[-1] == cv2.IMREAD_REDUCED_COLOR_4


def test_a_small_image_is_enlarged_and_a_fitting_one_is_left_alone(tmp_path, quarters):
    path = tmp_path / "small.png"
    Image.fromarray(quarters).save(path)
    assert images.load_resized(path, 192).shape == (192, 320, 3)
    np.testing.assert_array_equal(images.load_resized(path, 96), quarters)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_depth_becomes_eight_bit_rgb(tmp_path, mode):
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (32, 1))
    if mode == "I;16":
        image = Image.fromarray(ramp.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(ramp).convert("RGB").convert(mode)
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    image.save(path)
    got = images.load_resized(path, 32)
    assert got.shape == (32, 64, 3)
    assert got.dtype == np.uint8
    assert got[:, :2].mean() < 20
    assert got[:, -2:].mean() > 235


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_every_cut_of_a_jpeg_is_noticed(quarters, options):
    whole = jpeg(quarters, quality=60, **options)
    assert images.is_complete(whole)
    assert images.is_complete(whole + b"trailing bytes of a camera")
    assert not any(images.is_complete(whole[:length]) for length in range(2, len(whole)))


def test_the_end_marker_of_a_thumbnail_does_not_make_a_cut_jpeg_whole(quarters):
    thumbnail = jpeg(quarters[::4, ::4])
    segment = b"Exif\0\0" + thumbnail
    whole = jpeg(quarters)
    with_thumbnail = whole[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + whole[2:]
    assert images.is_complete(with_thumbnail)
    assert not images.is_complete(with_thumbnail[: len(with_thumbnail) - 200])


def test_a_jpeg_whose_tail_was_never_downloaded_is_noticed(quarters):
    whole = jpeg(quarters)
    assert not images.is_complete(whole[: len(whole) // 2] + bytes(len(whole) // 2))


@pytest.mark.parametrize("read", [images.read_rgb, lambda path: images.load_resized(path, 32)])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda p: jpeg(p)[:-300], "truncated"),
        (lambda p: cv2.imencode(".png", p)[1].tobytes()[:-5], "truncated"),
        (lambda p: b"<html>not found</html>", "not an image"),
        (lambda p: b"", "not an image"),
    ],
)
def test_bad_files_are_named(tmp_path, quarters, read, content, message):
    path = tmp_path / "ISIC_0000001.jpg"
    path.write_bytes(content(quarters))
    with pytest.raises(InputError, match=rf"ISIC_0000001\.jpg: {message}"):
        read(path)


def test_a_damaged_png_with_its_end_is_noticed(tmp_path):
    data = bytearray(cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (64, 64, 3)))[1].tobytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path = tmp_path / "damaged.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged\.png"):
        images.load_resized(path, 32)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png.*cannot be read"):
        images.read_rgb(tmp_path / "gone.png")


def test_a_written_png_reads_back_the_same_and_is_recognised(tmp_path, quarters):
    path = tmp_path / "a.png"
    written = images.write_png(path, quarters)
    np.testing.assert_array_equal(images.read_rgb(path), quarters)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), quarters)
    assert images.stored(path) == written
    assert (written.width, written.height) == (160, 96)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_an_incomplete_or_missing_png_is_not_taken_for_stored(tmp_path, quarters):
    path = tmp_path / "a.png"
    assert images.stored(path) is None
    images.write_png(path, quarters)
    path.write_bytes(path.read_bytes()[:-20])
    assert images.stored(path) is None
    path.write_bytes(b"")
    assert images.stored(path) is None

"""Decoding: completeness of files, orientation, depth, colour, and the reduced decode against a full one."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from dermsynth.data.sets import decoding, images
from dermsynth.errors import BrokenImageError


def drawn():
    """A picture whose four corners differ, so that every turn and flip of it is another picture."""
    picture = np.zeros((96, 160, 3), np.uint8)
    picture[:48, :80], picture[48:, 80:], picture[48:, :80] = (250, 10, 10), (10, 10, 250), (10, 250, 10)
    return picture


def resized(path, size, member=""):
    """A photograph of a download as a set has it."""
    return images.fit_short_side(images.load(path, size, member), size)


@pytest.fixture
def quarters():
    return drawn()


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(picture, **options):
    return encoded(picture, "JPEG", **{"quality": 98, "subsampling": 0, **options})


def colours(seed=0, shape=(24, 40, 3)):
    """Smooth colours, as JPEG keeps them."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 5, shape[2]), dtype=np.uint8)
    return cv2.resize(small, shape[1::-1], interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [96, 48, 30, 12])  # whole, and reduced to a half, a half and an eighth
def test_exif_orientation_is_honoured_at_every_scale(tmp_path, quarters, suffix, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    options = {"quality": 98, "subsampling": 0} if suffix == "jpg" else {}
    Image.fromarray(quarters).save(path, exif=exif, **options)

    got = resized(path, size)

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

    got = resized(path, 70)

    assert flags == [cv2.IMREAD_REDUCED_COLOR_8]  # 600 / 8 = 75 still covers 70
    reference = np.asarray(Image.open(path).resize(got.shape[1::-1], Image.Resampling.BOX))
    assert got.shape == (70, 93, 3)
    assert np.abs(got.astype(int) - reference).mean() < 2
    resized(path, 76)
    assert flags[-1] == cv2.IMREAD_REDUCED_COLOR_4


def test_grey_fills_three_channels():
    grey = colours(shape=(24, 40, 1))
    for data in (encoded(grey, "PNG"), jpeg(grey, quality=100)):
        got = decoding.decode(data, "x")
        assert np.abs(got.astype(int) - grey[:, :, None]).max() <= 2


def test_sixteen_bits_become_eight():
    deep = np.random.default_rng(0).integers(0, 1 << 16, (20, 30), dtype=np.uint16)
    colour = np.random.default_rng(1).integers(0, 1 << 16, (20, 30, 3), dtype=np.uint16)
    for values, rgb in ((deep, np.stack([deep] * 3, axis=2)), (colour, colour[:, :, ::-1])):
        got = decoding.decode(cv2.imencode(".png", values)[1].tobytes(), "x")
        assert got.dtype == np.uint8
        assert np.abs(got - rgb / 257).max() <= 1


def test_cmyk_is_ink_on_white():
    ink = colours(shape=(24, 40, 4))
    got = decoding.decode(jpeg(Image.fromarray(ink, "CMYK"), quality=100), "x")
    cmy, black = ink[:, :, :3] / 255, ink[:, :, 3:] / 255
    assert np.abs(got - 255 * (1 - cmy) * (1 - black)).mean() < 2


def test_transparency_is_dropped_and_the_colours_stay():
    rgba = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    np.testing.assert_array_equal(decoding.decode(encoded(rgba, "PNG"), "x"), rgba[:, :, :3])
    grey = np.random.default_rng(0).integers(0, 256, (20, 30, 2), dtype=np.uint8)
    got = decoding.decode(encoded(Image.fromarray(grey, "LA"), "PNG"), "x")
    np.testing.assert_array_equal(got, np.repeat(grey[:, :, :1], 3, axis=2))


def test_palettes_and_black_and_white_are_looked_up():
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    index = np.random.default_rng(1).integers(0, 256, (20, 30), dtype=np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(decoding.decode(encoded(image, "PNG"), "x"), palette[index])
    bits = index > 127
    got = decoding.decode(encoded(Image.fromarray(bits), "PNG"), "x")
    np.testing.assert_array_equal(got, np.repeat(bits[:, :, None] * np.uint8(255), 3, axis=2))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_every_cut_of_a_jpeg_is_noticed(quarters, options):
    whole = jpeg(quarters, quality=60, **options)
    assert decoding.is_complete(whole)
    assert decoding.is_complete(whole + b"trailing bytes of a camera")
    assert not any(decoding.is_complete(whole[:length]) for length in range(2, len(whole)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_the_walk_over_segments_ends_whatever_the_bytes(tail):
    data = b"\xff\xd8" + tail
    # By the definition, a byte at a time.
    position, whole = 2, False
    while position + 1 < len(data) and not whole:
        kind = data[position + 1]
        if data[position] == 0xFF and kind not in (0x00, 0xFF, *range(0xD0, 0xD8)):
            whole = kind == 0xD9
            position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
        else:
            position += 1
    assert decoding.is_complete(data) == whole


def test_the_end_marker_of_a_thumbnail_does_not_make_a_cut_jpeg_whole(quarters):
    thumbnail = jpeg(quarters[::4, ::4])
    segment = b"Exif\0\0" + thumbnail
    whole = jpeg(quarters)
    with_thumbnail = whole[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + whole[2:]
    assert decoding.is_complete(with_thumbnail)
    assert not decoding.is_complete(with_thumbnail[: len(with_thumbnail) - 200])


def test_a_jpeg_whose_tail_was_never_downloaded_is_noticed(quarters):
    whole = jpeg(quarters)
    assert not decoding.is_complete(whole[: len(whole) // 2] + bytes(len(whole) // 2))


def test_a_damaged_png_with_its_end_is_noticed():
    data = bytearray(encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), "PNG"))
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    with pytest.raises(BrokenImageError, match="damaged"):
        decoding.decode(bytes(data), "x")


def test_the_size_of_a_png_is_read_from_its_header(quarters):
    data = encoded(quarters, "PNG")
    assert decoding.png_size(data) == (160, 96)
    assert decoding.png_size(data[:-1]) is None
    assert decoding.png_size(jpeg(quarters)) is None


@pytest.mark.parametrize(
    ("shape", "taken"), [((10, 200), True), ((200, 10), True), ((10, 201), False), ((201, 10), False)]
)
def test_a_strip_is_no_photograph(tmp_path, shape, taken):
    """A line of a million pixels would be enlarged to half a million megapixels."""
    path = tmp_path / "strip.png"
    Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(path)
    for read in (lambda: resized(path, 16), lambda: images.read_rgb(path)):
        if taken:
            assert read().max() == 0
        else:
            with pytest.raises(BrokenImageError, match=rf"strip\.png: {shape[1]} × {shape[0]} pixels; one side"):
                read()


def test_a_large_flat_photograph_is_no_bomb():
    black = np.zeros((3000, 4000), np.uint8)
    for data in (jpeg(black, quality=1, optimize=True), encoded(Image.fromarray(black > 0), "PNG", compress_level=9)):
        assert decoding.decode(data, "x", cover=100).max() <= 1


def test_a_jpeg_that_is_damaged_in_the_middle_is_noticed(capfd):
    whole = jpeg(colours(shape=(200, 200, 3)), quality=80)
    third = len(whole) // 3
    larger = whole.replace(bytes([0, 200, 0, 200]), bytes([1, 200, 1, 200]), 1)
    for damaged in (whole[:third] + bytes(third) + whole[2 * third :], larger):
        for read in (decoding.decode, decoding.decode_trusted):
            with pytest.raises(BrokenImageError, match=r"x: damaged \(Corrupt JPEG data"):
                read(damaged, "x")
    padded = whole[:-2] + bytes(4) + whole[-2:]
    assert decoding.decode(padded, "x").shape == (200, 200, 3)
    assert capfd.readouterr().err == ""


def test_a_few_bytes_of_picture_before_the_end_are_damage_and_padding_is_none():
    """A scan that loses its place may fill its blocks early, and then leaves some of its bytes over."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    whole = jpeg(noise, quality=90)
    with pytest.raises(BrokenImageError, match=r"Corrupt JPEG data: \d\d extraneous bytes before marker 0xd9"):
        decoding.decode(whole[:-2] + whole[-42:-2] + whole[-2:], "x")
    for padding in (bytes(40), b"\xff" * 40):
        assert decoding.decode(whole[:-2] + padding + whole[-2:], "x").shape == (256, 256, 3)


def test_an_image_of_another_size_than_its_row_says_is_refused(tmp_path, quarters):
    for suffix in ("png", "jpg"):
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(quarters).save(path)
        assert images.read_rgb(path, (160, 96)).shape == (96, 160, 3)
        with pytest.raises(BrokenImageError, match=r"160 × 96 pixels where metadata.csv says 999 × 96"):
            images.read_rgb(path, (999, 96))


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
    png = bytearray(encoded(Image.fromarray(np.zeros((16, 16), bool)), "PNG"))
    png[16:24] = (30_000).to_bytes(4, "big") * 2
    monkeypatch.setattr(cv2, "imdecode", lambda *a: pytest.fail("decoded"))
    with pytest.raises(BrokenImageError, match="declares 30000 × 30000 pixels"):
        decoding.decode_trusted(bytes(png), "x")

"""Reading photographs of any kind, resizing them, and the PNG files of a set."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from dermsynth.data.sets import images
from dermsynth.errors import BrokenImageError, InputError
from tests.data.sets.test_decoding import drawn, encoded, jpeg, resized


@pytest.fixture
def quarters():
    return drawn()


def test_a_small_image_is_enlarged_and_a_fitting_one_is_left_alone(tmp_path, quarters):
    path = tmp_path / "small.png"
    Image.fromarray(quarters).save(path)
    assert resized(path, 192).shape == (192, 320, 3)
    np.testing.assert_array_equal(resized(path, 96), quarters)


@pytest.mark.parametrize("read", [images.read_rgb, lambda path: resized(path, 32)])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda p: jpeg(p)[:-300], "truncated"),
        (lambda p: encoded(p, "PNG")[:-5], "truncated"),
        (lambda p: b"<html>not found</html>", "not a JPEG or PNG"),
        (lambda p: b"", "not a JPEG or PNG"),
    ],
)
def test_bad_files_are_named(tmp_path, quarters, read, content, message):
    path = tmp_path / "ISIC_0000001.jpg"
    path.write_bytes(content(quarters))
    with pytest.raises(BrokenImageError, match=rf"ISIC_0000001\.jpg: {message}"):
        read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BrokenImageError, match=r"gone\.png.*cannot be read"):
        images.read_rgb(tmp_path / "gone.png")


def test_a_written_png_reads_back_the_same_and_is_recognised(tmp_path, quarters):
    path = tmp_path / "a.png"
    written = images.write_png(path, quarters)
    np.testing.assert_array_equal(images.read_rgb(path), quarters)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), quarters)
    assert images.stored(path) == written
    assert (written.width, written.height) == (160, 96)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_notes_do_not_touch_the_pixels(tmp_path, quarters):
    plain, noted = tmp_path / "plain.png", tmp_path / "noted.png"
    images.write_png(plain, quarters)
    images.write_png(noted, quarters, {"Description": "a naevus, ≤ 6 mm", "Software": "dermsynth"})
    image = Image.open(noted)
    image.load()
    assert image.text == {"Description": "a naevus, ≤ 6 mm", "Software": "dermsynth"}
    image = Image.open(noted)
    image.verify()  # the checksums
    # All that tells the two files apart are the notes.
    without = noted.read_bytes()
    for _ in range(2):
        start = without.index(b"iTXt") - 4
        without = without[:start] + without[start + 12 + int.from_bytes(without[start : start + 4], "big") :]
    assert without == plain.read_bytes()


def test_an_incomplete_or_missing_png_is_not_taken_for_stored(tmp_path, quarters):
    path = tmp_path / "a.png"
    assert images.stored(path) is None
    images.write_png(path, quarters)
    path.write_bytes(path.read_bytes()[:-20])
    assert images.stored(path) is None
    path.write_bytes(b"")
    assert images.stored(path) is None


def test_the_cores_are_those_that_a_job_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 8}, raising=False)
    assert images.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert images.cores() == 1


def test_a_png_that_cannot_be_written_leaves_nothing(tmp_path, quarters):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(InputError, match=r"a\.png: cannot be written"):
        images.write_png(tmp_path / "a.png", quarters)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_opencv_makes_no_threads_that_a_forked_loader_process_would_wait_for():
    assert cv2.getNumThreads() == 1

"""Every image is decoded once, whatever stops the run; what is broken is listed and never decoded into the set."""

import csv
import os
import signal

import cv2
import h5py
import numpy as np
import pytest

from dermsynth.data.prepare import store
from dermsynth.data.prepare.layouts.download import SourceImage
from dermsynth.data.prepare.store import store_all
from dermsynth.data.sets import images
from dermsynth.data.sets.cleaning import Cleaning
from dermsynth.data.sets.manifest import Record
from dermsynth.errors import InputError
from tests.data.sets.test_decoding import colours, encoded


def record(image_id):
    return Record(f"images/{image_id}.png", image_id, sha256="", width=0, height=0, source="drawn")


@pytest.fixture
def found(tmp_path):
    listed = []
    (tmp_path / "source").mkdir()
    for number in range(20):
        path = tmp_path / "source" / f"a{number}.png"
        path.write_bytes(encoded(colours(number), "PNG"))
        listed.append(SourceImage(path, record(path.stem)))
    return listed


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that were decoded, in their order."""
    names = []
    load = images.load
    monkeypatch.setattr(images, "load", lambda path, *more: names.append(path.name) or load(path, *more))
    return names


def contents(out):
    return {path.name: path.read_bytes() for path in (out / "images").iterdir()}


@pytest.mark.parametrize("after", range(0, 21, 4))
@pytest.mark.parametrize("moment", ["before it is decoded", "before it is written", "before it has its name"])
def test_a_run_killed_at_any_moment_decodes_only_what_is_not_there(
    tmp_path, found, out, decoded, monkeypatch, after, moment
):
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = store_all(found, whole, 12, processes=1)
    decoded.clear()

    class Killed(BaseException):
        pass

    owner, name = {
        "before it is decoded": (images, "load"),
        "before it is written": (images, "write_png"),
        "before it has its name": (store.Path, "replace"),
    }[moment]
    real, left = getattr(owner, name), [after]

    def until_killed(*arguments):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, until_killed)
        if after < len(found):
            with pytest.raises(Killed):
                store_all(found, out, 12, processes=1)
        else:
            store_all(found, out, 12, processes=1)
    there = {name for name in contents(out) if not name.startswith(".")}
    assert len(there) == after
    assert all(contents(whole)[name] == contents(out)[name] for name in there)

    decoded.clear()
    assert store_all(found, out, 12, processes=1) == expected
    assert len(decoded) == len(found) - after
    assert not {f"{name.removesuffix('.png')}.png" for name in decoded} & there
    assert contents(out) == contents(whole)


def test_broken_images_are_tried_again_each_time_and_the_others_are_not(found, out, decoded):
    whole = found[3].path.read_bytes()
    found[3].path.write_bytes(whole[:-20])
    results = store_all(found, out, 12, processes=1, max_broken=0.05)
    assert [n for n, result in enumerate(results) if result is None] == [3]
    assert len(decoded) == 20
    assert store_all(found, out, 12, processes=1, max_broken=0.05) == results
    assert decoded[20:] == ["a3.png"]
    found[3].path.write_bytes(whole)
    assert None not in store_all(found, out, 12, processes=1)
    assert decoded[21:] == ["a3.png"]
    assert not (out / "quarantine.csv").exists()


def test_a_thin_image_or_one_that_cannot_be_resized_stops_no_other(found, out, monkeypatch):
    found[3].path.write_bytes(encoded(np.zeros((1, 100_000, 3), np.uint8), "PNG"))
    fit = images.fit_short_side

    def fail_once(image, size):
        if (image == colours(5)).all():
            raise cv2.error("no memory")
        return fit(image, size)

    monkeypatch.setattr(images, "fit_short_side", fail_once)
    results = store_all(found, out, 12, processes=1, max_broken=0.1)
    assert [n for n, result in enumerate(results) if result is None] == [3, 5]
    with (out / "quarantine.csv").open() as file:
        reasons = [row["reason"] for row in csv.DictReader(file)]
    assert reasons[0].startswith("100000 × 1 pixels; one side of a photograph")
    assert reasons[1].startswith("cannot be resized to 12 pixels")


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("broken", "share", "passes"), [(1, 0.05, True), (2, 0.05, False), (1, 0.0, False)])
def test_more_than_the_stated_share_is_an_error(found, out, processes, broken, share, passes):
    for image in found[:broken]:
        image.path.write_bytes(b"text")
    if passes:
        assert store_all(found, out, 12, processes, share).count(None) == broken
    else:
        with pytest.raises(InputError, match=rf"{broken} of 20 images cannot be used(.|\n)*--max_broken {share:g}"):
            store_all(found, out, 12, processes, share)
    with (out / "quarantine.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == [f"a{n}" for n in range(broken)]
    assert {row["reason"] for row in rows} == {"not a JPEG or PNG image (4 bytes). Download it again."}


@pytest.mark.parametrize("processes", [1, 2])
def test_images_of_an_hdf5_file(tmp_path, out, processes):
    path = tmp_path / "train-image.hdf5"
    with h5py.File(path, "w") as file:
        for number in range(4):
            file[f"ISIC_{number}"] = np.void(encoded(colours(number), "PNG") if number != 2 else b"text")
    found = [SourceImage(path, record(f"ISIC_{n}"), member=f"ISIC_{n}") for n in range(5)]
    results = store_all(found, out, 24, processes, max_broken=0.4)
    assert [result is None for result in results] == [False, False, True, False, True]
    np.testing.assert_array_equal(images.read_rgb(out / "images/ISIC_3.png"), colours(3))
    with (out / "quarantine.csv").open() as file:
        assert [row["file_name"] for row in csv.DictReader(file)] == ["ISIC_2", "ISIC_4"]


def test_a_missing_package_stops_the_run_and_is_no_broken_image(found, out, monkeypatch):
    def load(*arguments):
        raise InputError("HDF5 files need h5py")

    monkeypatch.setattr(images, "load", load)
    with pytest.raises(InputError, match="need h5py"):
        store_all(found, out, 12, processes=1, max_broken=0.9)
    assert not (out / "quarantine.csv").exists()


def test_cleaned_images_have_the_size_that_was_asked_for(found, out):
    results = store_all(found, out, 12, processes=1, cleaning=Cleaning(hair_removal=True, border_crop=True))
    assert {min(result.width, result.height) for result in results} == {12}


def killed(job):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_line_and_the_next_run_goes_on(found, out, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(store, "_store", killed)
        with pytest.raises(InputError, match=r"one of 2 processes that resize was killed.*fewer --processes") as error:
            store_all(found, out, 12, processes=2)
    assert "\n" not in str(error.value)
    assert None not in store_all(found, out, 12, processes=1)

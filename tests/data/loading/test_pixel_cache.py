"""Decoded images: the same pixels as from the files, made once, whole or not at all."""

import errno
import fcntl
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from collections import namedtuple

import cv2
import numpy as np
import pytest
import torch
import yaml

from dermsynth.data.loading import pixel_cache
from dermsynth.data.loading.modules import ClassificationData
from dermsynth.data.loading.pixel_cache import PixelCache
from dermsynth.data.mixing.policies import Ratio
from dermsynth.data.sets import manifest
from dermsynth.data.sets.images import fit_short_side, read_rgb
from dermsynth.errors import InputError
from tests.builders import CLASSES, make_set
from tests.processes import Ranks
from tests.ranks import at_once, rank_here

FORKED = multiprocessing.get_context("fork")


def listed(root):
    image_set = manifest.read(root)
    return [(image_set.path(record), record) for record in image_set.records]


def files_of(cache):
    """All that lies in a cache but the files that processes lock."""
    return [path for path in cache.iterdir() if path.suffix != ".lock"]


@pytest.fixture
def parts(tmp_path):
    return [listed(make_set(tmp_path / "one")), [], listed(make_set(tmp_path / "two", {"NV": 3}, size=12))]


@pytest.mark.parametrize("size", [8, 12, 16])
def test_it_holds_the_pixels_of_the_files_in_their_order(tmp_path, parts, size):
    cache = PixelCache(tmp_path / "cache", parts, size)
    paths = [path for part in parts for path, _ in part]
    assert len(cache) == len(paths) == 27
    for number, path in enumerate(paths):
        np.testing.assert_array_equal(cache[number], fit_short_side(read_rgb(path), size))
    assert len(files_of(tmp_path / "cache")) == 2


def test_images_keep_their_aspect(tmp_path):
    root = make_set(tmp_path / "set", {"NV": 2})
    rows = listed(root)
    wide = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    cv2.imwrite(str(rows[0][0]), wide)
    table = root / "metadata.csv"
    table.write_text(table.read_text().replace(",16,16,", ",31,20,", 1))
    cache = PixelCache(tmp_path / "cache", [listed(root)], 10)
    assert [cache[n].shape for n in range(2)] == [(10, 16, 3), (10, 10, 3)]
    np.testing.assert_array_equal(cache[0], fit_short_side(read_rgb(rows[0][0]), 10))


def test_what_is_read_may_be_changed(tmp_path, parts):
    cache = PixelCache(tmp_path / "cache", parts, 8)
    before = cache[0]
    cache[0][:] = 0
    np.testing.assert_array_equal(cache[0], before)


def test_it_is_made_once_and_again_for_other_images_or_another_size(tmp_path, parts, monkeypatch):
    PixelCache(tmp_path / "cache", parts, 8)
    reads = []
    monkeypatch.setattr(pixel_cache, "read_rgb", lambda path, *size: reads.append(path) or read_rgb(path))
    PixelCache(tmp_path / "cache", parts, 8)
    assert not reads
    PixelCache(tmp_path / "cache", [parts[0][:5], parts[2]], 8)
    assert len(reads) == 5
    PixelCache(tmp_path / "cache", [parts[2]], 9)
    assert len(reads) == 8


def test_a_pickled_one_is_small_and_maps_the_files_again(tmp_path):
    parts = [listed(make_set(tmp_path / "set", size=64))]
    cache = PixelCache(tmp_path / "cache", parts, 64)
    sent = pickle.dumps(cache)
    assert len(sent) < 5_000 < 24 * 64 * 64 * 3
    np.testing.assert_array_equal(pickle.loads(sent)[7], cache[7])


def test_a_broken_image_is_named_and_leaves_no_file(tmp_path, parts):
    path = parts[0][4][0]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=f"{path.name}: truncated"):
        PixelCache(tmp_path / "cache", parts, 8)
    assert not files_of(tmp_path / "cache")


def test_an_image_of_another_size_than_its_row_says_is_refused(tmp_path, parts):
    cv2.imwrite(str(parts[0][4][0]), np.zeros((16, 20, 3), np.uint8))
    with pytest.raises(InputError, match=r"pixels where metadata\.csv says"):
        PixelCache(tmp_path / "cache", parts, 8)


def test_a_full_disk_or_a_file_in_the_way_is_said_before_anything_is_decoded(tmp_path, parts, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no folder can be made"):
        PixelCache(tmp_path / "file", parts, 8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1000))
    with pytest.raises(InputError, match=r"data\.pixel_cache: .*has 0\.0 GB left"):
        PixelCache(tmp_path / "cache", parts, 8)


def test_threads_are_as_many_as_the_job_has_cores(tmp_path, parts, monkeypatch):
    asked = []
    pool = pixel_cache.ThreadPoolExecutor
    monkeypatch.setattr(pixel_cache, "ThreadPoolExecutor", lambda threads: asked.append(threads) or pool(threads))
    monkeypatch.setattr(pixel_cache, "cores", lambda: 3)
    PixelCache(tmp_path / "cache", parts[:1], 8)
    assert asked == [3]


def test_a_file_that_was_cut_is_made_again(tmp_path, parts):
    PixelCache(tmp_path / "cache", parts, 8)
    file = max(files_of(tmp_path / "cache"), key=lambda path: path.stat().st_size)
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    PixelCache(tmp_path / "cache", parts, 8)
    assert file.read_bytes() == whole


def test_two_processes_decode_the_images_once(tmp_path, parts, monkeypatch):
    start, cache, log = FORKED.Barrier(2), tmp_path / "cache", tmp_path / "log"

    def read(path, *size):
        with log.open("a") as file:
            file.write(f"{path.name}\n")
        time.sleep(0.02)
        return read_rgb(path)

    def work():
        start.wait(20)
        mine = PixelCache(cache, parts, 8)
        np.testing.assert_array_equal(mine[26], fit_short_side(read_rgb(parts[2][2][0]), 8))

    monkeypatch.setattr(pixel_cache, "read_rgb", read)
    processes = [FORKED.Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(log.read_text().split()) == sorted(path.name for part in parts for path, _ in part)
    assert len(files_of(cache)) == 2


def test_what_a_killed_process_left_is_deleted_and_holds_up_nobody(tmp_path, parts, monkeypatch):
    cache = tmp_path / "cache"
    PixelCache(cache, parts[2:], 8)
    other = cache / f".{files_of(cache)[0].name}.0123.part"
    other.write_bytes(b"of another file, which may be in the making")
    with monkeypatch.context() as patch:
        patch.setattr(pixel_cache, "read_rgb", lambda path, *size: os.kill(os.getpid(), signal.SIGKILL))
        killed = FORKED.Process(target=PixelCache, args=(cache, parts[:1], 8))
        killed.start()
        killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert len(list(cache.glob(".*.part"))) == 2
    assert len(PixelCache(cache, parts[:1], 8)) == 24
    assert list(cache.glob(".*.part")) == [other]


def test_on_a_disk_without_locks_two_machines_do_not_write_into_one_file(tmp_path, parts, monkeypatch):
    """While one decodes, another, with a process of the same id, makes the same file."""

    def flock(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    others = []

    def read(path, *size):
        if not others:
            others.append(None)
            others[0] = PixelCache(tmp_path / "cache", parts, 8)
        return read_rgb(path)

    monkeypatch.setattr(pixel_cache, "read_rgb", read)
    mine = PixelCache(tmp_path / "cache", parts, 8)
    for number in range(27):
        np.testing.assert_array_equal(mine[number], others[0][number])
    assert len(files_of(tmp_path / "cache")) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without_it(tmp_path, workers):
    real = make_set(tmp_path / "real")
    split = manifest.train_split_sha256(manifest.read(real).records)
    made = make_set(tmp_path / "made", dict.fromkeys(CLASSES, 6), "train", "synthetic", train_split_sha256=split)

    def batches(**options):
        data = ClassificationData(
            real=real,
            synthetic=[made],
            classes=CLASSES,
            size=12,
            batch_size=4,
            mix=Ratio(0.5),
            augmentation="standard",
            **options,
        )
        data.setup("fit")
        return [*data.train_dataloader(), *data.val_dataloader()]

    plain = batches()
    cached = batches(pixel_cache=tmp_path / "cache", num_workers=workers)
    assert len(plain) == len(cached) == 8
    for one, two in zip(plain, cached, strict=True):
        assert one["image_id"] == two["image_id"]
        torch.testing.assert_close(one["pixel_values"], two["pixel_values"], rtol=0, atol=0)


@pytest.mark.parametrize(("devices", "made_by"), [(2, [0]), (1, [0, 1])], ids=["one machine", "two machines"])
def test_one_process_of_a_machine_makes_it_while_the_others_wait(tmp_path, monkeypatch, devices, made_by):
    real, cache = make_set(tmp_path / "real"), tmp_path / "cache"
    built = []
    build = pixel_cache._build

    def noted(*arguments):
        built.append(rank_here())
        build(*arguments)

    monkeypatch.setattr(pixel_cache, "_build", noted)

    def load(trainer):
        # Each machine has a disk of its own.
        folder = cache / str(trainer.global_rank // devices)
        data = ClassificationData(real=real, classes=CLASSES, size=12, batch_size=2, pixel_cache=folder)
        data.trainer = trainer
        data.setup("validate")
        return len(list(data.val_dataloader()))

    assert at_once(load, devices) == [2, 2]
    assert sorted(built) == made_by
    assert len(list(cache.rglob("*.rgb"))) == len(made_by)


@pytest.mark.parametrize(("devices", "broken"), [(2, 0), (1, 0), (1, 1)])
def test_where_one_process_cannot_make_it_all_say_why(tmp_path, monkeypatch, devices, broken):
    real = make_set(tmp_path / "real")

    build = pixel_cache._build

    def full(*arguments):
        if rank_here() == broken:
            raise InputError("the disk is full")
        build(*arguments)

    monkeypatch.setattr(pixel_cache, "_build", full)

    def load(trainer):
        data = ClassificationData(
            real=real, classes=CLASSES, size=12, batch_size=2, pixel_cache=tmp_path / str(trainer.global_rank)
        )
        data.trainer = trainer
        data.setup("validate")
        data.val_dataloader()

    errors = at_once(load, devices)
    assert [(type(error), str(error)) for error in errors] == [(InputError, "the disk is full")] * 2


@pytest.mark.slow
def test_two_processes_that_train_are_shown_the_same_with_and_without_it(tmp_path):
    data = {"real": str(make_set(tmp_path / "real")), "classes": CLASSES, "size": 12, "batch_size": 2}
    data |= {"augmentation": "standard", "num_workers": 1}
    trainer = {
        "accelerator": "cpu",
        "precision": "32-true",
        "devices": 2,
        "strategy": "ddp",
        "max_epochs": 2,
        "logger": False,
    }
    trainer |= {"enable_progress_bar": False, "num_sanity_val_steps": 0}
    recipe = {
        "trainer": trainer,
        "model": {"class_path": "toy.Noting"},
        "data": {"class_path": "dermsynth.data.loading.modules.ClassificationData", "init_args": data},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    def shown(run, *more):
        ranks = Ranks(["fit", "--config", "recipe.yaml", "--run", run, *more], 2, tmp_path, run)
        assert ranks.statuses() == [0, 0], ranks.log(0)
        return [(tmp_path / run / f"shown-{rank}").read_text().splitlines() for rank in range(2)]

    plain, cached = shown("plain"), shown("cached", "--data.pixel_cache", "cache")
    assert cached == plain
    # Two epochs of three training batches and, of six validation images, two.
    assert [len(lines) for lines in plain] == [10, 10]
    assert not set(plain[0]) & set(plain[1])
    assert len(list((tmp_path / "cache").glob("*.rgb"))) == len(files_of(tmp_path / "cache")) == 2

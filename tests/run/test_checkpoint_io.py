import multiprocessing
import os
import resource
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dermsynth.errors import InputError
from dermsynth.run.checkpoint_io import WholeCheckpointIO, remove_leftovers

WEIGHTS = {"weight": torch.arange(100_000.0)}


@contextmanager
def files_of_at_most(size):
    """Writes beyond this many bytes fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def path(tmp_path):
    """A checkpoint of 400 kB."""
    WholeCheckpointIO().save_checkpoint(WEIGHTS, tmp_path / "checkpoints" / "last.ckpt")
    return tmp_path / "checkpoints" / "last.ckpt"


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def assert_as_it_was(path):
    assert torch.equal(torch.load(path, weights_only=True)["weight"], WEIGHTS["weight"])


def test_what_is_saved_is_loaded_and_removed(path):
    plugin = WholeCheckpointIO()
    assert torch.equal(plugin.load_checkpoint(path, weights_only=True)["weight"], WEIGHTS["weight"])
    plugin.remove_checkpoint(path)
    assert not list(path.parent.iterdir())


def test_what_is_loaded_stays_on_disk_and_as_it_was_when_the_file_is_replaced_or_removed(path):
    plugin = WholeCheckpointIO()
    weight = plugin.load_checkpoint(path, weights_only=True)["weight"]
    assert str(path) in Path("/proc/self/maps").read_text()
    plugin.save_checkpoint({"weight": -WEIGHTS["weight"]}, path)
    plugin.remove_checkpoint(path)
    assert torch.equal(weight, WEIGHTS["weight"])
    weight += 1  # of this process's own
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("size", [0, 300, 1000, 200_000, 400_500])
def test_a_full_disk_leaves_the_checkpoint_before(path, size):
    with files_of_at_most(size), pytest.raises(InputError, match=r"last\.ckpt: cannot be written \(File too large\)"):
        WholeCheckpointIO().save_checkpoint({"weight": -WEIGHTS["weight"]}, path)
    assert_as_it_was(path)
    assert names(path.parent) == ["last.ckpt"]
    with files_of_at_most(size), pytest.raises(InputError, match="No part of it was left"):
        WholeCheckpointIO().save_checkpoint(WEIGHTS, path.with_name("best.ckpt"))
    assert names(path.parent) == ["last.ckpt"]


NEW = {"weight": -WEIGHTS["weight"]}
FORKS = multiprocessing.get_context("fork")


def killed(work):
    """Let a process do it until it is killed."""
    process = FORKS.Process(target=work)
    process.start()
    process.join(30)
    assert process.exitcode in (-signal.SIGKILL, -signal.SIGXFSZ)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("size", [1, 1000, 65_536, 200_000, 399_999, -1])
def test_a_kill_after_any_byte_leaves_the_checkpoint_before_and_a_part_that_goes_with_the_next_run(path, size):
    size %= path.stat().st_size  # that of the new one, too

    def save():
        # Beyond the limit the system itself kills, in the middle of a write.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with files_of_at_most(size):
            WholeCheckpointIO().save_checkpoint(NEW, path)

    killed(save)
    assert_as_it_was(path)
    (path.parent / "notes.part").touch()
    (part,) = path.parent.glob(".last.ckpt.*.part")
    assert part.stat().st_size <= size
    remove_leftovers(path.parent)
    assert names(path.parent) == ["last.ckpt", "notes.part"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_kill_around_the_last_steps_leaves_the_one_or_the_other_whole(path, call, moment):
    real = getattr(os, call)

    def deadly(*arguments, **options):
        if moment == "after":
            real(*arguments, **options)
        kill()

    def save():
        setattr(os, call, deadly)
        WholeCheckpointIO().save_checkpoint(NEW, path)

    killed(save)
    if (call, moment) == ("replace", "after"):
        assert torch.equal(torch.load(path, weights_only=True)["weight"], NEW["weight"])
    else:
        assert_as_it_was(path)
        # What was to take its place lies whole beside it: only its name is missing.
        (part,) = path.parent.glob(".last.ckpt.*.part")
        assert torch.equal(torch.load(part, weights_only=True)["weight"], NEW["weight"])
    remove_leftovers(path.parent)
    assert names(path.parent) == ["last.ckpt"]


@pytest.mark.parametrize("milliseconds", [0, 1, 2, 5, 10, 20, 50])
def test_a_kill_at_any_time_of_saving_again_and_again_leaves_one_whole(path, milliseconds):
    """Killed from outside, wherever that finds it."""
    begun, ready = os.pipe()

    def save():
        os.write(ready, b"!")
        while True:
            for content in (NEW, WEIGHTS):
                WholeCheckpointIO().save_checkpoint(content, path)

    process = FORKS.Process(target=save)
    process.start()
    os.read(begun, 1)
    time.sleep(milliseconds / 1000)
    process.kill()
    process.join()
    weight = torch.load(path, weights_only=True)["weight"]
    assert torch.equal(weight.abs(), WEIGHTS["weight"])
    assert len({*weight[1:].sign().tolist()}) == 1
    remove_leftovers(path.parent)
    assert names(path.parent) == ["last.ckpt"]


def test_other_errors_are_not_taken_for_a_full_disk(path):
    with pytest.raises(AttributeError):
        WholeCheckpointIO().save_checkpoint({"weight": lambda: None}, path)
    with pytest.raises(TypeError, match="storage_options"):
        WholeCheckpointIO().save_checkpoint(WEIGHTS, path, storage_options={})
    assert_as_it_was(path)
    assert names(path.parent) == ["last.ckpt"]

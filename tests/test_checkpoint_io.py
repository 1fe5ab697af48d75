import multiprocessing
import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dermsynth.checkpoint_io import WholeCheckpointIO, remove_leftovers
from dermsynth.errors import InputError

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


class Killing:
    """Kills the process that pickles it."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_while_writing_leaves_the_checkpoint_before_and_a_part_that_goes_with_the_next_run(path):
    process = multiprocessing.get_context("fork").Process(
        target=WholeCheckpointIO().save_checkpoint, args=({"weight": -WEIGHTS["weight"], "last": Killing()}, path)
    )
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert_as_it_was(path)
    (path.parent / "notes.part").touch()
    assert len(names(path.parent)) == 3
    remove_leftovers(path.parent)
    assert names(path.parent) == ["last.ckpt", "notes.part"]


def test_other_errors_are_not_taken_for_a_full_disk(path):
    with pytest.raises(AttributeError):
        WholeCheckpointIO().save_checkpoint({"weight": lambda: None}, path)
    with pytest.raises(TypeError, match="storage_options"):
        WholeCheckpointIO().save_checkpoint(WEIGHTS, path, storage_options={})
    assert_as_it_was(path)
    assert names(path.parent) == ["last.ckpt"]

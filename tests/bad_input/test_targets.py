"""Places that a set cannot be written to, or not to the end."""

import contextlib
import io
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermsynth.data.sets import manifest
from dermsynth.errors import InputError
from tests.bad_input.helpers import COUNT, VICTIM, go
from tests.data.sets.test_decoding import jpeg
from tests.rights import without_rights


def nothing_half_written(out):
    """No set that looks complete, and no file that is not whole."""
    if out.exists():
        assert not (out / "metadata.csv").exists()
        assert not list(out.rglob("*.part"))
        for path in out.rglob("*.png"):
            Image.open(path).load()


@pytest.mark.parametrize("what", [f"images/{VICTIM}.png", "images", "metadata.csv", "dataset.json", "quarantine.csv"])
def test_nothing_is_written_through_a_link(source, out, outside, what):
    go(source, out)
    path = out / what
    if path.exists():
        path.rename(out.parent / "away")
    path.symlink_to(outside if what == "images" else outside / "secret.png")
    with pytest.raises(InputError, match="a symbolic link that leaves"):
        go(source, out)


def test_a_target_that_is_no_folder_is_an_error(source, out, tmp_path):
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file", tmp_path / "file" / "set", tmp_path / "file" / "a" / "b"):
        with pytest.raises(InputError, match=r"a file|no folder can be made"):
            go(source, target)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a place where nobody may write")
def test_a_target_that_cannot_be_made_is_an_error(source):
    with pytest.raises(InputError, match="no folder can be made there"):
        go(source, Path("/proc/dermsynth-set"))


def test_a_file_in_the_place_of_the_images_is_an_error(source, out):
    go(source, out)
    (out / "metadata.csv").unlink()
    (out / "images").rename(out.parent / "away")
    (out / "images").write_text("mine")
    with pytest.raises(InputError, match="images: no folder can be made there"):
        go(source, out)
    nothing_half_written(out)


def test_a_folder_in_the_place_of_an_image_is_an_error(source, out):
    go(source, out)
    (out / "metadata.csv").unlink()
    (out / "images" / f"{VICTIM}.png").unlink()
    (out / "images" / f"{VICTIM}.png").mkdir()
    with pytest.raises(InputError, match=f"{VICTIM}.png: cannot be written"):
        go(source, out)
    assert not (out / "metadata.csv").exists()


@contextlib.contextmanager
def files_of_at_most(size):
    """Writes beyond this many bytes fail, as on a full disk; yields what is printed on stderr meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield said
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 100, 600, 1000, 1500])
def test_a_full_target_is_an_error_and_room_made_the_same_command_goes_on(source, out, size):
    for number in range(COUNT):
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        (source / "train" / f"ISIC_{number:07d}.jpg").write_bytes(jpeg(noise))
    with files_of_at_most(size), pytest.raises(InputError, match="cannot be written"):
        go(source, out)
    nothing_half_written(out)
    go(source, out)
    assert len(manifest.read(out).records) == COUNT


@pytest.mark.parametrize("what", ["", "images", "dataset.json", ".source-sizes.json"])
def test_what_cannot_be_read_of_a_target_is_named(source, out, what):
    go(source, out)
    with without_rights(out / what), pytest.raises(InputError) as error:
        go(source, out)
    assert str(error.value) == f"{out / what}: cannot be read (Permission denied)."

"""Files and folders that appear whole or not at all, and that stay in their place."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dermsynth.errors import InputError


def write_bytes_atomically(path: Path, data: bytes, sync: bool = True) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one.

    Args:
        path: where to; a symbolic link there is replaced and not followed.
        data: what.
        sync: wait for the disk, so that a power failure, too, leaves one of the two.

    Raises:
        InputError: the disk is full, or the place cannot be written to; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error


def write_atomically(path: Path, text: str) -> None:
    """The same for text in UTF-8."""
    write_bytes_atomically(path, text.encode())


def make_folder(path: Path, new: bool = False) -> None:
    """Make a folder and those above it, or find that it is there.

    Args:
        path: of the folder.
        new: it must not be there yet.

    Raises:
        InputError: a file is in the way, or the place cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=not new)
    except OSError as error:
        raise InputError(f"{path}: no folder can be made there ({error.strerror or error}).") from error


def refuse_links_out(folder: Path) -> None:
    """Raise if anything in a folder is a symbolic link to a place outside it; links within are fine.

    Raises:
        InputError: naming the link.
    """
    root = folder.resolve()
    for entry in _entries(root):
        if entry.is_symlink() and not Path(entry).resolve().is_relative_to(root):
            raise InputError(
                f"{folder / Path(entry).relative_to(root)}: a symbolic link that leaves {folder}, which is not "
                "followed. Put the files themselves there, or give the folder where they lie."
            )


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    # os.scandir asks the disk once a folder and not once a file.
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry))


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` when the block ends well.

    Raises:
        InputError: `out` exists, or no folder can be made there.
    """
    if out.exists():
        raise InputError(f"--out {out}: it exists already. Choose another folder or remove it.")
    temporary = out.with_name(f".{out.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # of a command that was killed
    make_folder(temporary, new=True)
    yield temporary
    temporary.rename(out)

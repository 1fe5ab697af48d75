"""Files and folders that appear whole or not at all, that stay in their place, or that cannot be read."""

import fcntl
import glob
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from dermsynth.errors import InputError

OF_THE_SYSTEM = "os error"  # by which safetensors hands on what the system said, in words alone


@contextmanager
def whole_file(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """A file to write into, which takes its place when the block ends well; a kill at any moment leaves the old one.

    Args:
        path: where to; a symbolic link there is replaced and not followed.
        sync: wait for the disk, so that a power failure, too, leaves the old file or the new one.

    Raises:
        InputError: the disk is full, or the place cannot be written to; the old file is as it was.
    """
    # By chance and not by process id: on a shared disk, two machines may have processes of the same id.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_bytes_atomically(path: Path, data: bytes, sync: bool = True) -> None:
    """Write a file at once, as `whole_file` does."""
    with whole_file(path, sync) as file:
        file.write(data)


def write_atomically(path: Path, text: str) -> None:
    """The same for text in UTF-8."""
    write_bytes_atomically(path, text.encode())


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system says of a file or folder that cannot be read into a message that names it.

    Raises:
        InputError: there is no right to read it, a folder is in its place, the disk is broken.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: of the file.
        advice: what to do if it is broken, as a sentence.

    Raises:
        InputError: it cannot be read, is not JSON in UTF-8, or holds something else than an object.
    """
    if not path.is_file():  # a pipe would be waited on forever
        raise InputError(f"{path}: {'not a file' if path.exists() else 'no such file'}. {advice}")
    try:
        with reading(path):
            content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise InputError(f"{path}: lists or objects within one another, too deep to be read. {advice}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON in UTF-8 ({error}). {advice}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; expected an object. {advice}")
    return content


def utf8(name: str) -> str:
    """A file's name as text can hold it: bytes that are no UTF-8 become their numbers."""
    return os.fsencode(name).decode(errors="backslashreplace")


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
        InputError: naming the link, or what cannot be looked into.
    """
    # Not Path.resolve, which raises RuntimeError at links that lead in a circle.
    root = Path(os.path.realpath(folder))
    try:
        for entry in _entries(root):
            if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(root):
                raise InputError(
                    f"{folder / Path(entry).relative_to(root)}: a symbolic link that leaves {folder}, which is not "
                    "followed. Put the files themselves there, or give the folder where they lie."
                )
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read ({error.strerror or error}).") from error


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    # os.scandir asks the disk once a folder and not once a file.
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry))


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` when the block ends well; else nothing is left.

    Raises:
        InputError: `out` exists, or another command has made it meanwhile, or it cannot be written to.
    """
    if os.path.lexists(out):
        raise InputError(f"--out {out}: it exists already. Choose another folder or remove it.")
    _remove_leftovers(out)
    # By chance, as two commands may make one folder at the same time.
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(8)}.partial")
    make_folder(temporary, new=True)
    held = _hold(temporary)
    try:
        yield temporary
        give_usual_rights(temporary)
        if os.path.lexists(out):  # an empty folder would be replaced
            raise InputError(f"--out {out}: another command has made it meanwhile. Choose another folder.")
        temporary.rename(out)
    except Exception as error:
        if isinstance(error, OSError) or OF_THE_SYSTEM in str(error):
            said = error.strerror if isinstance(error, OSError) else None
            raise InputError(f"--out {out}: cannot be written ({said or error}). Nothing is left there.") from error
        raise
    finally:
        if held is not None:
            os.close(held)
        shutil.rmtree(temporary, ignore_errors=True)


def give_usual_rights(folder: Path) -> None:
    """Give the files of a folder the rights that new files have here; safetensors writes for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~mask)


def _hold(folder: Path) -> int | None:
    """Keep others from taking a folder for one that a killed command left; none if they do, or cannot tell.

    The lock is on the folder itself, so that none is left in what it becomes; `filelock` locks files.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_leftovers(out: Path) -> None:
    for folder in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
        with suppress(OSError):
            if (held := _hold(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(held)

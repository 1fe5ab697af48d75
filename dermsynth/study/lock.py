"""One study at a time in a folder."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dermsynth.errors import InputError
from dermsynth.files import make_folder

LOCK = ".study"


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other studies from working in a folder.

    The lock is `flock`'s, which the steps that a study starts inherit: it is held until the last of them has ended,
    also where the study itself was killed; `filelock` hands its locks to no other program. Where the file system has no
    locks, nothing is kept from anybody.

    Args:
        out: the folder, which is made.

    Raises:
        InputError: another study, or a step of one, is at work there, or nothing can be written there.
    """
    make_folder(out)
    path = out / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error
    try:
        os.set_inheritable(descriptor, True)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            whose = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            raise InputError(
                f"--out {out}: a study ({whose}), or a step that it left, is at work there. Let it end, or give "
                "another --out."
            ) from error
        except OSError:
            pass  # this file system has none
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)

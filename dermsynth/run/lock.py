"""One process at a time that trains or generates, that tests, or that compares in a folder."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from dermsynth.errors import InputError
from dermsynth.files import make_folder

# Not the `.job` of slurm/common.sh, which holds it around all stages: on NFS the two would be one lock.
LOCK = ".training"
# Of their own, as what a training keeps may be tested while it trains.
TEST_LOCK = ".testing"
COMPARE_LOCK = ".comparing"
# Seconds for a process that was told to end, or killed, to be gone: it may have much memory to give back.
PATIENCE = 30.0


@contextmanager
def locked(folder: Path, name: str = LOCK, flag: str = "--run") -> Iterator[None]:
    """Keep other processes from the same work in a folder, on this machine or another that sees it.

    The system holds the lock for this process alone, and lets go of it when that ends, however it does. The file stays;
    it only says whose the lock is, or was. Where the file system has no locks, nothing is kept from anybody.

    Args:
        folder: where it is done; it is made.
        name: of the lock, which says what work it is.
        flag: that names the folder in messages.

    Raises:
        InputError: another process is at work there, or nothing can be written there.
    """
    make_folder(folder)
    path = folder / name
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error
    with file:
        _wait_for(file, folder, flag)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _wait_for(file: TextIO, folder: Path, flag: str) -> None:
    until, said = time.monotonic() + PATIENCE, False
    while _is_held_by_another(file):
        file.seek(0)
        other = file.read().strip() or "another process"
        if time.monotonic() >= until:
            raise InputError(f"{flag} {folder}: {other} is at work there. Let it end, or give another {flag}.")
        if not said:
            said = True
            print(f"{folder}: {other} is at work there; waiting {PATIENCE:.0f} s for it to end", flush=True)
        time.sleep(0.1)


def _is_held_by_another(file: TextIO) -> bool:
    """Take the lock, unless somebody has it."""
    try:
        # Not `flock`: forked loader processes would share it, and keep it if they outlive this one.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:  # this file system has none
        return False
    return False

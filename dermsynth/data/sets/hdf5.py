"""Images that lie in an HDF5 file, each under a key, as ISIC 2024 comes."""

from pathlib import Path
from types import ModuleType

import numpy as np

from dermsynth.errors import BrokenImageError, InputError


def members(path: Path) -> set[str]:
    """The keys of an HDF5 file.

    Raises:
        InputError: it is none, or h5py is not installed.
    """
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            return set(file.keys())
    except OSError as error:
        raise InputError(f"{path}: not an HDF5 file, or not all of it ({error}). Download it again.") from error


def read_member(path: Path, member: str, max_bytes: int) -> bytes:
    """The bytes of one JPEG in an HDF5 file.

    An HDF5 key may also be a link to another file, or its data lie in one; neither is followed.

    Args:
        path: the HDF5 file.
        member: the key.
        max_bytes: that are read.

    Raises:
        BrokenImageError: the file or the key is missing, or holds something else.
        InputError: h5py is not installed.
    """
    where = f"{path}[{member}]"
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            if not isinstance(file.get(member, getlink=True), h5py.HardLink):
                raise BrokenImageError(where, "no image of that key lies in the file itself.")
            entry = file[member]
            if not isinstance(entry, h5py.Dataset) or entry.is_virtual or entry.external:
                raise BrokenImageError(where, "no plain data set.")
            if entry.nbytes > max_bytes:
                raise BrokenImageError(
                    where, f"{entry.nbytes:,} bytes; no more than {max_bytes:,} are read as one image."
                )
            return np.asarray(entry[()]).tobytes()
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise BrokenImageError(where, f"cannot be read from the HDF5 file ({error}).") from error


def _h5py(path: Path) -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path}: reading HDF5 needs h5py: pip install h5py.") from error
    return h5py

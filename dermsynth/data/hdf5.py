"""The bytes of an image that lies in an HDF5 file under a key, as ISIC 2024 comes."""

from pathlib import Path

import numpy as np

from dermsynth.errors import BrokenImageError, InputError


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
    try:
        import h5py
    except ImportError as error:
        raise InputError("HDF5 files need h5py: pip install h5py.") from error
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

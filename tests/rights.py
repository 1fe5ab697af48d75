"""Files that their reader has no right to, for root too, who may read everything."""

import contextlib
import os

NOBODY = 65534


@contextlib.contextmanager
def without_rights(path):
    """Until the block ends, nobody may read `path` or look into it; root plays a user who has no rights at all."""
    modes = {place: place.stat().st_mode for place in (path, *path.parents)}
    for place, mode in modes.items():
        if place != path and not mode & 0o001:  # pytest's own folders
            place.chmod(mode | 0o011)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for place, mode in modes.items():
            if place.stat().st_mode != mode:
                place.chmod(mode)

"""Files that their reader has no right to, for root too, who may read and write everything."""

import contextlib
import os

NOBODY = 65534


def without_rights(path):
    """Until the block ends, nobody may read `path` or look into it; root plays a user who has no rights at all."""
    return _with_modes({path: 0}, path.parents)


def read_only(folder):
    """Until the block ends, nobody may write into a folder and what is in it."""
    places = [folder, *folder.rglob("*")]
    return _with_modes({place: place.stat().st_mode & ~0o222 | 0o444 for place in places}, folder.parents)


@contextlib.contextmanager
def _with_modes(wanted, above):
    modes = {place: place.stat().st_mode for place in (*wanted, *above)}
    for place in above:  # pytest's own folders
        if not modes[place] & 0o001:
            place.chmod(modes[place] | 0o011)
    for place, mode in wanted.items():
        place.chmod(mode)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for place, mode in modes.items():
            if place.exists() and place.stat().st_mode != mode:
                place.chmod(mode)

"""Tell a folder from a hub id, so that a misspelt folder is reported at once and not looked for on the network."""

from pathlib import Path


def is_folder_name(name: str) -> bool:
    """Whether a model's name means a local folder, existing or not, and cannot be a hub id.

    It does if there is such a folder, if it is spelt as a path (absolute, `./x`, `~/x`, `a/b/c`), or if its first
    component is a local folder: beside a folder `runs`, `runs/bsae` is a typing error and no model of a user `runs`.
    """
    path = Path(name).expanduser()
    if path.is_dir() or path.is_absolute() or name.startswith((".", "~")) or len(path.parts) > 2:
        return True
    return len(path.parts) == 2 and Path(path.parts[0]).is_dir()

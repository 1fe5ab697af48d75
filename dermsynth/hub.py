"""A model is a folder or a hub id: tell them apart, so that a misspelt folder is not looked for on the network."""

from pathlib import Path


def local_folder(name: str) -> Path | None:
    """The folder that a model's name means, with `~` expanded, if there is one."""
    try:
        folder = Path(name).expanduser()
    except RuntimeError:  # ~somebody, who is not known here
        return None
    return folder if folder.is_dir() else None


def is_folder_name(name: str) -> bool:
    """Whether a model's name means a local folder, existing or not, and cannot be a hub id.

    It does if there is such a folder, if it is spelt as a path (absolute, `./x`, `~/x`, `a/b/c`), or if its first
    component is a local folder: beside a folder `runs`, `runs/bsae` is a typing error and no model of a user `runs`.
    """
    path = Path(name)
    if local_folder(name) or path.is_absolute() or name.startswith((".", "~")) or len(path.parts) > 2:
        return True
    return len(path.parts) == 2 and Path(path.parts[0]).is_dir()


def explain_missing(name: str, flag: str, mark: str) -> str:
    """Say that a model's folder does not exist, and what to give if the name was meant for a hub id.

    Args:
        name: of the folder.
        flag: by which a model is given.
        mark: a file that a model's folder has.
    """
    first, *rest = Path(name).parts or (name,)
    if name.startswith(".") or len(rest) != 1 or not Path(first).is_dir():
        return f"no folder {name!r}."
    said = f"no folder {name!r}: there is a folder {first} here, but no {rest[0]} in it."
    if (Path(first) / mark).is_file():
        return f"{said} The model lies in {first} itself: give {flag} {first}."
    return f"{said} A hub id of that name can be given where no folder is called {first}."


def first_line(error: Exception) -> str:
    """What a library said, without the advice that follows, as a sentence."""
    said = str(error).strip() or type(error).__name__
    return f"{said.splitlines()[0].rstrip('.')}."

"""Images that lie in a folder, by name; nothing outside the folder is looked at."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath

from dermsynth.data.sets.images import SUFFIXES
from dermsynth.data.sets.name_lists import some
from dermsynth.errors import InputError

_MASKS = ("_superpixels", "_segmentation")


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image; masks of the challenges' other tasks and hidden files are not."""
    stem, _, suffix = name.lower().rpartition(".")
    return f".{suffix}" in SUFFIXES and not name.startswith(".") and not stem.endswith(_MASKS)


def list_images(*places: Path) -> dict[str, Path]:
    """Image files that lie directly in folders, by name without suffix; of the same name, the earlier folder's.

    Raises:
        InputError: two files of one folder have the same name but for their suffix.
    """
    files: dict[str, Path] = {}
    for place in places:
        here: dict[str, Path] = {}
        names = [entry.name for entry in os.scandir(place)] if place.is_dir() else []
        for name in sorted(filter(is_image, names)):
            stem = name.rpartition(".")[0]
            if stem in here:
                raise InputError(f"{place / name}: {here[stem].name} lies beside it. Keep one file per image.")
            here[stem] = place / name
        files = here | files
    return files


def holds_images(place: Path) -> bool:
    """Whether an image lies directly in a folder."""
    with os.scandir(place) as entries:
        return any(is_image(entry.name) for entry in entries)


def passed_over(place: Path, but: Iterable[str] = (), deep: bool = False) -> str:
    """Files in a folder that are no images, counted by suffix, as `.bmp 30`; blank if there are none.

    Args:
        place: the folder.
        but: suffixes of files that are there for another reason.
        deep: also in its subfolders.
    """
    names = [name for _, _, here in os.walk(place) for name in here] if deep else _files(place)
    kinds = Counter(_kind(name) for name in names if not name.startswith(".") and not is_image(name))
    return ", ".join(f"{kind} {count}" for kind, count in kinds.most_common() if kind not in but)


def _files(place: Path) -> list[str]:
    with os.scandir(place) as entries:
        return [entry.name for entry in entries if entry.is_file()]


def _kind(name: str) -> str:
    """The suffix, of a mask with what tells it from an image, as `_segmentation.png`; else the name."""
    path = PurePath(name.lower())
    mask = next((mask for mask in _MASKS if path.stem.endswith(mask)), "")
    return ascii(mask + path.suffix)[1:-1] or name


def every_image(folder: Path) -> list[PurePosixPath]:
    """Image files at any depth of a folder, as sorted paths in it."""
    found = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sorted(PurePosixPath(path.relative_to(folder).as_posix()) for path in found if is_image(path.name))


def subfolders(place: Path) -> list[Path]:
    """Folders that lie directly in a folder, sorted; none if it is not there."""
    entries = os.scandir(place) if place.is_dir() else ()
    return sorted(place / entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def refuse_missing(names: Sequence[str], there: Mapping[str, object] | set[str], places: str, table: Path) -> None:
    """Raise if a table names images that are not there.

    Raises:
        InputError: counting them and naming the first.
    """
    missing = [name for name in names if name not in there]
    if missing:
        raise InputError(
            f"{table}: {len(missing)} of {len(names)} images that it names are missing: {some(missing)}. "
            f"Looked in {places}. Finish the download, or remove their rows."
        )


def find(
    names: Sequence[str], places: Sequence[Path], table: Path, left_out: Iterable[str] = ()
) -> tuple[dict[str, Path], int]:
    """The files of the images that a table names, and how many lie there that it does not name.

    Args:
        names: of the images that are taken.
        places: folders where they may lie; the earlier one wins.
        table: that names them, for messages.
        left_out: images that it names and that are not taken; they need not be there.

    Raises:
        InputError: some are missing.
    """
    files = list_images(*places)
    refuse_missing(names, files, f"{' and '.join(map(str, places))} for {', '.join(SUFFIXES)}", table)
    return {name: files[name] for name in names}, len(files.keys() - set(names) - set(left_out))


def image_ids(paths: Sequence[PurePath]) -> list[str]:
    """Ids for files that may lie in several folders: their names, or if these repeat, folders and names.

    Blanks and other characters that do not belong into a file name become `_`.

    Raises:
        InputError: two files would have the same id.
    """
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = ["_".join(path.with_suffix("").parts) for path in paths]
    ids = [re.sub(r"[^A-Za-z0-9_.-]+", "_", name).lstrip(".-") or "_" for name in names]
    by_id: dict[str, PurePath] = {}
    for path, name in zip(paths, ids, strict=True):
        if name in by_id:
            raise InputError(f"{path} and {by_id[name]} would both become {name}. Rename one of them.")
        by_id[name] = path
    return ids

"""The leak rules: what may be trained on, given what will be tested on."""

import contextlib
import hashlib
import stat
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from dermsynth.data.sets import near_duplicates
from dermsynth.data.sets.manifest import ImageSet, Record, refuse_torn, sha256_file, train_split_sha256
from dermsynth.data.sets.name_lists import some
from dermsynth.errors import InputError
from dermsynth.files import reading, write_atomically

# In a generated set's folder: held-out sets of which it is known to hold no copy, a hash a line.
SEARCHED = ".no-copies"
# In a real set's folder: held-out files whose hashes were right, a hash of them a line.
VERIFIED = ".held-out-verified"


def check(
    real: ImageSet, synthetic: Sequence[ImageSet], allow_foreign: Collection[str], for_prior: bool = False
) -> None:
    """Raise if a mix of real and generated sets could tell the model about the patients it is tested on.

    1. No group, patient, lesion or file lies in two splits, by whichever of the columns.
    2. `real` holds real images only, so none that is validated or tested on is generated.
    3. A generated set holds generated images only, none of them for validation or test, and none that says it is of a
       patient or lesion that is validated or tested on.
    4. Its generator was fitted on this train split, or the set is named in `allow_foreign`.
    5. Whoever made it, it holds no near-copy of an image that is validated or tested on.
    6. The images that are validated or tested on are the files that metadata.csv was written for.

    Args:
        real: the set that is trained, validated and tested on.
        synthetic: the generated sets that are mixed in.
        allow_foreign: names of generated sets (their folders' names) whose generator is allowed to have been fitted on
            something else than this train split; a name stands for one set.
        for_prior: the images are the class images of a generator's own fit; those of a base that was never fitted on
            an image set (blank `train_split_sha256`) are allowed.

    Raises:
        InputError: naming the set, the image and what to do.
    """
    refuse_torn(real.records, real.root)
    for record in real.records:
        if record.origin != "real":
            raise InputError(
                f"{real.root}: image {record.image_id} is generated; data.real takes real images only. "
                "Give generated sets as data.synthetic."
            )
    for name in sorted(set(allow_foreign)):
        of_this_name = [str(s.root) for s in (real, *synthetic) if s.root.name == name]
        if not of_this_name:
            raise InputError(f"data.allow_foreign: {name} is not the folder name of a set that is given.")
        if len(of_this_name) > 1:
            raise InputError(
                f"data.allow_foreign: {name} is the folder name of {' and '.join(of_this_name)}, so it does not say "
                "which of them you answer for. Rename one."
            )
    held_out = [record for record in real.records if record.split in ("val", "test")]
    _refuse_replaced(real, held_out)
    split_hash = train_split_sha256(real.records)
    for generated in synthetic:
        for record in generated.records:
            if record.origin != "synthetic" or record.split in ("val", "test"):
                raise InputError(
                    f"{generated.root}: image {record.image_id} has origin {record.origin} and split {record.split}; "
                    "a set in data.synthetic holds only generated images, and none for validation or test."
                )
        # Of the given sets together, as a set's own rows have been checked.
        refuse_torn([*held_out, *(replace(r, group="", split="train") for r in generated.records)], generated.root)
        hashes = {record.extra.get("train_split_sha256", "") for record in generated.records}
        if for_prior:
            hashes.discard("")
        if generated.root.name not in allow_foreign and not hashes <= {split_hash}:
            found = ", ".join(sorted(h[:12] or "none" for h in hashes - {split_hash}))
            raise InputError(
                f"{generated.root}: its generator was fitted on another train split ({found}) than that of {real.root} "
                f"({split_hash[:12]}), so it may have seen the patients you test on. Generate again with a model "
                f"fitted on {real.root}, or name the set in data.allow_foreign if you know that it has not."
            )
        _refuse_copies(real, held_out, generated)


def _refuse_replaced(real: ImageSet, held_out: Sequence[Record]) -> None:
    """Reading every file takes long, so it is done once for the held-out ones, which results stand on."""
    note = _Note(real.root / VERIFIED, _files(real, held_out))
    if note.known:
        return
    for record in held_out:
        path = real.path(record)
        with reading(path):
            found = sha256_file(path)
        if found != record.sha256:
            raise InputError(
                f"{path}: another file than the one that metadata.csv was written for (its sha256 is {found[:12]}…, "
                f"not {record.sha256[:12]}…), and it is in the {record.split} split. Put the first one back, or "
                "prepare the set again."
            )
    note.write()


def _refuse_copies(real: ImageSet, held_out: Sequence[Record], generated: ImageSet) -> None:
    """The search takes as long as reading the images, so a clean result is kept beside the generated ones."""
    files = f"{_files(real, held_out)};{_files(generated, generated.records)}"
    note = _Note(generated.root / SEARCHED, files)
    if note.known:
        return
    pairs = near_duplicates.find_between(
        near_duplicates.read_thumbnails([real.path(record) for record in held_out]),
        near_duplicates.read_thumbnails([generated.path(record) for record in generated.records]),
    )
    if pairs:
        named = [
            f"{generated.records[copy].file_name} of {held_out[original].image_id} ({held_out[original].split})"
            for original, copy in pairs
        ]
        raise InputError(
            f"{generated.root}: {len(pairs)} near-copies of images that {real.root} validates or tests on: "
            f"{some(named)}. Take their rows out of metadata.csv, and ask how the generator came to know them."
        )
    note.write()


class _Note:
    """A hidden file in a set's folder that keeps which files a slow check has passed, a hash a line."""

    def __init__(self, path: Path, files: str) -> None:
        self._path, self._line, self._lines = path, hashlib.sha256(files.encode()).hexdigest(), list[str]()
        with contextlib.suppress(OSError, UnicodeDecodeError):  # not there, or nothing of ours
            self._lines = path.read_text(encoding="utf-8").split() if path.is_file() else []

    @property
    def known(self) -> bool:
        """Whether these files have passed before."""
        return self._line in self._lines

    def write(self) -> None:
        """Remember that they have."""
        with contextlib.suppress(InputError):  # a set may lie where nobody can write
            write_atomically(self._path, "\n".join([*self._lines, self._line]) + "\n")


def _files(images: ImageSet, records: Sequence[Record]) -> str:
    """What tells these files from others: a replaced one has another size or time of change, if not another row."""
    told = []
    for record in records:
        path = images.path(record)
        with reading(path):
            status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: not a file. Prepare the set again.")
        told.append(f"{record.sha256} {status.st_size} {status.st_mtime_ns}")
    return ",".join(sorted(told))

"""The leak rules: what may be trained on, given what will be tested on."""

import contextlib
import hashlib
from collections.abc import Collection, Sequence

from dermsynth.data import near_duplicates
from dermsynth.data.manifest import ImageSet, Record, train_split_sha256
from dermsynth.data.wording import some
from dermsynth.errors import InputError
from dermsynth.files import reading, write_atomically

# In a generated set's folder: held-out sets of which it is known to hold no copy, a hash a line.
SEARCHED = ".no-copies"


def check(
    real: ImageSet, synthetic: Sequence[ImageSet], allow_foreign: Collection[str], for_prior: bool = False
) -> None:
    """Raise if a mix of real and generated sets could tell the model about the patients it is tested on.

    1. No group lies in two splits.
    2. `real` holds real images only, so none that is validated or tested on is generated.
    3. A generated set holds generated images only, none of them for validation or test.
    4. Its generator was fitted on this train split, or the set is named in `allow_foreign`.
    5. Whoever made it, it holds no near-copy of an image that is validated or tested on.

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
    split_of: dict[str, str] = {}
    for record in real.records:
        if record.split != "unused" and split_of.setdefault(record.group, record.split) != record.split:
            raise InputError(
                f"{real.root}: image {record.image_id} ({record.split}) belongs to a patient, lesion or group that has "
                f"images in {split_of[record.group]}, too. Prepare the set again."
            )
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
    split_hash = train_split_sha256(real.records)
    for generated in synthetic:
        for record in generated.records:
            if record.origin != "synthetic" or record.split in ("val", "test"):
                raise InputError(
                    f"{generated.root}: image {record.image_id} has origin {record.origin} and split {record.split}; "
                    "a set in data.synthetic holds only generated images, and none for validation or test."
                )
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
        _refuse_copies(real, generated)


def _refuse_copies(real: ImageSet, generated: ImageSet) -> None:
    """The search takes as long as reading the images, so a clean result is kept beside the generated ones."""
    held_out = [record for record in real.records if record.split in ("val", "test")]
    files = f"{_files(real, held_out)};{_files(generated, generated.records)}"
    search = hashlib.sha256(files.encode()).hexdigest()
    kept = generated.root / SEARCHED
    known: list[str] = []
    with contextlib.suppress(OSError, UnicodeDecodeError):  # not there, or nothing of ours
        known = kept.read_text(encoding="utf-8").split()
    if search in known:
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
    with contextlib.suppress(InputError):  # a set may lie where nobody can write
        write_atomically(kept, "\n".join([*known, search]) + "\n")


def _files(images: ImageSet, records: Sequence[Record]) -> str:
    """What tells these files from others: a replaced one has another size or time of change, if not another row."""
    told = []
    for record in records:
        path = images.path(record)
        with reading(path):
            status = path.stat()
        told.append(f"{record.sha256} {status.st_size} {status.st_mtime_ns}")
    return ",".join(sorted(told))

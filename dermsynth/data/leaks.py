"""The leak rules: what may be trained on, given what will be tested on."""

from collections.abc import Collection, Sequence

from dermsynth.data.manifest import ImageSet, train_split_sha256
from dermsynth.errors import InputError


def check(
    real: ImageSet, synthetic: Sequence[ImageSet], allow_foreign: Collection[str], for_prior: bool = False
) -> None:
    """Raise if a mix of real and generated sets could tell the model about the patients it is tested on.

    That no group lies in two splits is checked when a set is read (`manifest.read`).

    Args:
        real: the set that is trained, validated and tested on.
        synthetic: the generated sets that are mixed in.
        allow_foreign: names of generated sets (their folders' names) whose generator is allowed to have been fitted on
            something else than this train split.
        for_prior: the images are the class images of a generator's own fit; those of a base that was never fitted on
            an image set (blank `train_split_sha256`) are allowed.

    Raises:
        InputError: naming the set, the image and what to do.
    """
    for record in real.records:
        if record.origin != "real":
            raise InputError(
                f"{real.root}: image {record.image_id} is generated; data.real takes real images only. "
                "Give generated sets as data.synthetic."
            )
    unknown = set(allow_foreign) - {s.root.name for s in (real, *synthetic)}
    if unknown:
        raise InputError(
            f"data.allow_foreign: {', '.join(sorted(unknown))} is not the folder name of a set that is given."
        )
    split_hash = train_split_sha256(real.records)
    for generated in synthetic:
        for record in generated.records:
            if record.origin != "synthetic" or record.split in ("val", "test"):
                raise InputError(
                    f"{generated.root}: image {record.image_id} has origin {record.origin} and split {record.split}; "
                    "a set in data.synthetic holds only generated images, and none for validation or test."
                )
        if generated.root.name in allow_foreign:
            continue
        hashes = {record.extra.get("train_split_sha256", "") for record in generated.records}
        if for_prior:
            hashes.discard("")
        if not hashes <= {split_hash}:
            found = ", ".join(sorted(h[:12] or "none" for h in hashes - {split_hash}))
            raise InputError(
                f"{generated.root}: its generator was fitted on another train split ({found}) than that of {real.root} "
                f"({split_hash[:12]}), so it may have seen the patients you test on. Generate again with a model "
                f"fitted on {real.root}, or name the set in data.allow_foreign if you know that it has not."
            )

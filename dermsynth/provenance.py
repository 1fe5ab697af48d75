"""What weights say of how they came about, in a pipeline's `dermsynth.json` or in a checkpoint."""

from typing import TypedDict, cast

from dermsynth.errors import InputError


class Provenance(TypedDict, total=False):
    """What weights were fitted on: the hash of the train split, its classes, licence and attribution.

    `token` is the rare word that they were taught, `base_model` what they were made of, and `train_images` the ids of
    the images where there is no train split of one image set.
    """

    train_split_sha256: str
    classes: list[str]
    license: str
    attribution: str
    token: str
    base_model: str
    train_images: list[str]


def check_provenance(owner: str, provenance: object) -> Provenance:
    """Refuse what the rules on leaks and licences could not read.

    Args:
        owner: whose it is, as the message names it.
        provenance: as read from a file.

    Returns:
        The same.

    Raises:
        InputError: it is no mapping, or a name or hash in it is no text.
    """
    if not isinstance(provenance, dict):
        raise InputError(f"{owner}: what it says of its data is a {type(provenance).__name__}; expected a mapping.")
    for key in ("train_split_sha256", "token", "license", "attribution", "base_model"):
        if not isinstance(provenance.get(key, ""), str):
            raise InputError(f"{owner}: {key} is {str(provenance[key])[:60]!r}; expected a text.")
    images = provenance.get("train_images", [])
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
        raise InputError(f"{owner}: train_images is no list of image ids.")
    return cast(Provenance, provenance)

"""Words for a diagnosis, as downloads and people spell them, to the codes of `dermsynth.lesions`."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from dermsynth import lesions
from dermsynth.data.prepare.layouts.tables import UNKNOWN
from dermsynth.errors import InputError


class Label(NamedTuple):
    """What a word says: a code or blank, and 1 for malignant, 0 for benign or None."""

    diagnosis: str = ""
    malignant: int | None = None


# The archive's vocabulary (PyPI isic-metadata) as far as our codes go, and other usual spellings.
_WORDS = {
    "invasive melanoma": "MEL",
    "melanoma invasive": "MEL",
    "melanoma in situ": "MEL",
    "melanoma metastasis": "MEL",
    "melanoma, nos": "MEL",
    "malignant melanocytic proliferations (melanoma)": "MEL",
    "naevus": "NV",
    "melanocytic nevus": "NV",
    "melanocytic naevus": "NV",
    "melanocytic nevi": "NV",
    "squamous cell carcinoma in situ": "SCC",
    "squamous cell carcinoma, invasive": "SCC",
    "squamous cell carcinoma, nos": "SCC",
    "solar or actinic keratosis": "AK",
    "pigmented benign keratosis": "BKL",
    "benign keratosis like lesion": "BKL",
    "benign keratosis like lesions": "BKL",
    "lichen planus like keratosis": "LK",
    "vascular lesions": "VASC",
    "hemangioma": "VASC",
    "angioma": "VASC",
    "angiokeratoma": "VASC",
    "pyogenic granuloma": "VASC",
    "benign soft tissue proliferations vascular": "VASC",
    "hemorrhagic lesions": "VASC",
    "cafe au lait macule or patch": "CALM",
    "atypical melanocytic neoplasm": "AMP",
    "atypical intraepithelial melanocytic proliferation": "AMP",
}


def plain(word: str) -> str:
    """A word as words are compared: case, `_`, `-` and surrounding blanks do not matter."""
    return " ".join(word.lower().replace("_", " ").replace("-", " ").split())


_CODES = {
    **_WORDS,
    **{plain(d.name): d.code for d in lesions.DIAGNOSES.values()},
    **{code.lower(): code for code in lesions.DIAGNOSES},
}


def code_of(word: str) -> str:
    """The code of a diagnosis, or blank if no code names it. Case, `_` and `-` do not matter."""
    return _CODES.get(plain(word), "")


def label_of(word: str, mapping: Mapping[str, str]) -> Label | None:
    """What a user's word says: by the mapping, else a code, a diagnosis's name, benign, malignant or unknown.

    Args:
        word: in a cell, or the name of a folder.
        mapping: the user's own words -> words that we know.

    Returns:
        None if the word is not known.

    Raises:
        InputError: the mapping leads to a word that is not known, or has the word twice.
    """
    same = {own: to for own, to in mapping.items() if plain(own) == plain(word)}
    if len(same) > 1:
        flags = " ".join(f"--labels.{own} {to}" for own, to in same.items())
        raise InputError(f"{flags}: one word, as case, `_` and `-` do not matter. Say once what it means.")
    for mapped in same.values():
        label = label_of(mapped, {})
        if label is None:
            raise InputError(f"--labels.{word} {mapped}: {mapped!r} is no {_known_words()}.")
        return label
    bare = plain(word)
    if bare in UNKNOWN:
        return Label()
    if bare in lesions.MALIGNANCY_CLASSES:
        return Label("", lesions.MALIGNANCY_CLASSES.index(bare))
    code = code_of(word)
    return Label(code, lesions.malignancy(code)) if code else None


def refuse_unknown(words: Counter[str], where: str) -> None:
    """Raise if there are words that `label_of` did not know.

    Raises:
        InputError: listing them, how often each occurs, and how to say what they mean.
    """
    if words:
        listed = ", ".join(f"{word!r} ({count})" for word, count in words.most_common())
        first = next(iter(words))
        raise InputError(
            f"{where}: labels that are not known: {listed}. Expected a {_known_words()}. "
            f"Say what each means, as --labels.{first.replace(' ', '_')} NV."
        )


def _known_words() -> str:
    return f"code or name out of {', '.join(lesions.DIAGNOSES)}, or benign, malignant or unknown"

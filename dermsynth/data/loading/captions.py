"""What an image is called in training: a template a class, and what metadata.csv says of lesion and patient.

Only values in the tables here become words. Blank ones, misspelt ones and whatever means "unknown" add nothing, so that
no caption says that something is not known, and the captions of a set can be listed.
"""

import itertools
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from dermsynth import lesions
from dermsynth.data.sets.manifest import Record
from dermsynth.errors import InputError
from dermsynth.seeds import Purpose, entropy

_T = TypeVar("_T")
Field = Literal["site", "sex", "age"]
INSTANCE_PROMPT = "a dermoscopic image of {token} {lesion}"
CLASS_PROMPT = "a dermoscopic image of {lesion}"
FIELDS: tuple[Field, ...] = ("site", "sex", "age")

_SITES = {
    "abdomen": "on the abdomen",
    "acral": "on the palm or sole",
    "anterior torso": "on the front of the torso",
    "back": "on the back",
    "chest": "on the chest",
    "ear": "on the ear",
    "face": "on the face",
    "foot": "on the foot",
    "genital": "on the genitals",
    "hand": "on the hand",
    "head neck": "on the head or neck",
    "head neck face": "on the head or neck",
    "lateral torso": "on the side of the torso",
    "lower extremity": "on the lower extremity",
    "neck": "on the neck",
    "oral genital": "in the mouth or on the genitals",
    "palms soles": "on the palm or sole",
    "posterior torso": "on the back of the torso",
    "scalp": "on the scalp",
    "torso": "on the torso",
    "trunk": "on the torso",
    "upper extremity": "on the upper extremity",
}
# Of a child, of an adult, and whose.
_PEOPLE = {"female": ("girl", "woman", "her"), "male": ("boy", "man", "his"), "": ("child", "person", "their")}
_DECADES = ("teens", "twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties")


@dataclass(frozen=True)
class Captions:
    """The captions of one kind of images.

    Args:
        prompts: of each class, with nothing left to fill in.
        metadata: what is added to it, where it is known: the body `site`, and `sex` and `age` band of the patient.
        dropout: the probability of each of these to be left out of a training image's caption, so that the model
            also learns the prompt without it.
    """

    prompts: Mapping[str, str]
    metadata: Sequence[Field] = ()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        unknown = set(self.metadata) - set(FIELDS)
        if unknown or len(set(self.metadata)) != len(self.metadata):
            raise InputError(f"data.metadata: {list(self.metadata)} must be some of {', '.join(FIELDS)}, each once.")
        if not 0 <= self.dropout <= 1:
            raise InputError(f"data.metadata_dropout: {self.dropout} must be from 0 to 1.")

    def caption(self, record: Record, class_name: str, seed: int | None = None) -> str:
        """The caption of one showing of an image.

        Args:
            record: of the image.
            class_name: its class.
            seed: of the showing, which decides what is left out; without one nothing is.
        """
        kept = set(self.metadata)
        if seed is not None and kept:
            # A number for each field there is, so that one field's fate does not depend on which others are asked for.
            numbers = np.random.default_rng(entropy(seed, Purpose.CAPTION)).random(len(FIELDS))
            kept = {
                name for name, number in zip(FIELDS, numbers, strict=True) if name in kept and number >= self.dropout
            }
        return self._with(record, class_name, kept)

    def all_captions(self, images: Iterable[tuple[Record, str]]) -> list[str]:
        """Every caption that these images, each with its class, may get in training or validation; sorted."""
        sizes = range(len(self.metadata) + 1) if self.dropout else (len(self.metadata),)
        choices = [set(some) for size in sizes for some in itertools.combinations(self.metadata, size)]
        kinds = {(r.anatom_site_general, r.sex, r.age_approx, name): r for r, name in images}
        return sorted({self._with(record, kind[-1], kept) for kind, record in kinds.items() for kept in choices})

    def _with(self, record: Record, class_name: str, kept: set[Field]) -> str:
        site = site_phrase(record.anatom_site_general) if "site" in kept else ""
        person = person_phrase(record.sex if "sex" in kept else "", record.age_approx if "age" in kept else None)
        return ", ".join(filter(None, (self.prompts[class_name], site, person)))


def site_phrase(site: str) -> str:
    """Where a lesion is, such as `on the lower extremity`; blank for a word that is in no table of the archive."""
    return _SITES.get(" ".join(site.lower().replace("/", " ").replace("_", " ").split()), "")


def person_phrase(sex: str, age: float | None) -> str:
    """Whose a lesion is, such as `of a woman in her forties`; blank if neither sex nor age is known.

    Args:
        sex: `female` or `male`; anything else says nothing.
        age: in years; one that no person has says nothing.
    """
    sex = sex.strip().lower()
    sex = sex if sex in _PEOPLE else ""
    child, adult, whose = _PEOPLE[sex]
    if age is None or not 0 <= age < 100:  # nor is "not a number"
        return f"of a {adult}" if sex else ""
    decade = int(age // 10)
    if decade == 0:
        return f"of a {child} under ten"
    return f"of a {adult if age >= 20 else child} in {whose} {_DECADES[decade - 1]}"


def prompts_of(
    template: str | Mapping[str, str], default: str, classes: Sequence[str], token: str, key: str
) -> dict[str, str]:
    """The prompt of each class.

    Args:
        template: `{token}` and `{lesion}` are filled in; one for all classes, or some classes' own.
        default: the template of classes that have none of their own.
        classes: `benign` and `malignant`, or diagnosis codes.
        token: the rare word.
        key: what is named in a message.

    Raises:
        InputError: a template has something else to fill in, or is that of a class that is not there.
    """
    templates = templates_of(template, default, classes, key)
    return {name: _filled(text, key, token=token, lesion=lesions.phrase(name)) for name, text in templates.items()}


def templates_of(template: _T | Mapping[str, _T], default: _T, classes: Sequence[str], key: str) -> dict[str, _T]:
    """The template of each class, one or whatever there is of them; args are those of `prompts_of`.

    Raises:
        InputError: one is of a class that is not there.
    """
    if not isinstance(template, Mapping):
        return dict.fromkeys(classes, template)
    if strangers := set(template) - set(classes):
        raise InputError(f"data.{key}: {', '.join(sorted(strangers))} not among data.classes ({', '.join(classes)}).")
    return {name: template.get(name, default) for name in classes}


def refuse_blank(token: str) -> None:
    """Refuse a token of no letters, which would be bound to nothing.

    Raises:
        InputError: it is blank.
    """
    if not token.strip():
        raise InputError("data.token: it is blank. Give a rare word, such as sks.")


def _filled(template: str, key: str, **values: str) -> str:
    bare = [(name, "", None) for name in values]
    try:
        # `str.format` alone would look for an attribute in `{token.x}` and for a letter in `{token[0]}`.
        parts = list(string.Formatter().parse(template))
        understood = all(name is None or (name, *how) in bare for _, name, *how in parts)
    except ValueError:  # a brace without its other half
        understood = False
    if not understood:
        raise InputError(
            f"data.{key}: in {template!r} only {{token}} and {{lesion}}, spelt just so, can be filled in. Double "
            "the braces that belong to the prompt itself."
        )
    return template.format(**values)

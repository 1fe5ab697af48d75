"""The plan of generation: how many images of each class, and the prompt of each image. Pure, no torch."""

import bisect
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dermsynth import lesions
from dermsynth.data.loading.captions import INSTANCE_PROMPT, Captions, Field, prompts_of, templates_of
from dermsynth.data.sets.manifest import ImageSet, Record
from dermsynth.errors import InputError
from dermsynth.seeds import Purpose, entropy


@dataclass(frozen=True)
class WeightedPrompt:
    """One of several prompts.

    Args:
        text: `{token}` and `{lesion}` are filled in.
        weight: how often it is drawn, beside the weights of the others.
    """

    text: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise InputError(f"data.prompt: the weight {self.weight} of {self.text!r} must be above 0.")


#: One prompt, or several of which each image draws one.
Prompt = str | list[WeightedPrompt]


class ImagePrompts:
    """The prompt of an image, as its seed draws it.

    Args:
        prompt: for all classes, or some classes' own.
        classes: `benign` and `malignant`, or diagnosis codes.
        token: the rare word.
        metadata: what is added of a training image of the class, drawn with equal chances: so what the added phrases
            say has the distribution that it has in training.
        real: the image set of these.
    """

    def __init__(
        self,
        prompt: Prompt | Mapping[str, Prompt],
        classes: Sequence[str],
        token: str,
        metadata: Sequence[Field] | None = None,
        real: ImageSet | None = None,
    ) -> None:
        if metadata and not real:
            raise InputError("data.metadata: it is drawn from training images; give their image set as data.real.")
        templates: dict[str, Prompt] = templates_of(prompt, INSTANCE_PROMPT, classes, "prompt")
        self._metadata = metadata
        self._weights: dict[str, list[float]] = {}
        self._captions: dict[str, list[Captions]] = {}
        for name, template in templates.items():
            several = [WeightedPrompt(template)] if isinstance(template, str) else template
            if not several:
                raise InputError(f"data.prompt: the list of {name} is empty.")
            texts = [prompts_of(one.text, "", [name], token, "prompt") for one in several]
            self._weights[name] = list(itertools.accumulate(one.weight for one in several))
            self._captions[name] = [Captions(text, metadata or ()) for text in texts]
        #: Of all classes, without what is added to them.
        self.texts = {text for several in self._captions.values() for one in several for text in one.prompts.values()}
        self._records = {name: _train(real, name) if metadata and real else [] for name in classes}

    def of(self, class_name: str, seed: int) -> str:
        """The prompt of an image.

        Args:
            class_name: its class.
            seed: its own.
        """
        weights, captions = self._weights[class_name], self._captions[class_name]
        records = self._records[class_name]
        if self._metadata and not records:
            raise InputError(f"data.metadata: data.real has no training image of {class_name} to draw it from.")
        if len(captions) == 1 and not records:
            return captions[0].prompts[class_name]
        which, whose = np.random.default_rng(entropy(seed, Purpose.PROMPT)).random(2)
        chosen = captions[bisect.bisect_right(weights, which * weights[-1], hi=len(weights) - 1)]
        if not records:
            return chosen.prompts[class_name]
        return chosen.caption(records[int(whose * len(records))], class_name)


def counts_of(
    classes: Sequence[str],
    count: int | Mapping[str, int] | None,
    fill_to: int | None,
    match: float | None,
    real: ImageSet | None,
) -> dict[str, int]:
    """How many images of each class.

    Args:
        classes: `benign` and `malignant`, or diagnosis codes.
        count: a number, for all classes or for each.
        fill_to: so many as bring the class's training images to this number.
        match: so many for each training image of the class.
        real: the image set of these.

    Raises:
        InputError: not exactly one of the three is given, or it is of no sense.
    """
    given = [name for name, value in (("count", count), ("fill_to", fill_to), ("match", match)) if value is not None]
    if len(given) != 1:
        found = f"{' and '.join(given)} are given" if given else "none is given"
        raise InputError(f"data: exactly one of count, fill_to and match says how many images; {found}.")
    if count is not None:
        counts = dict(count) if isinstance(count, Mapping) else dict.fromkeys(classes, count)
        if set(counts) != set(classes) or min(counts.values()) < 0 or not sum(counts.values()):
            raise InputError(
                f"data.count: {count} must give each of the classes {', '.join(classes)} a number from 0, not all 0."
            )
        return counts
    if real is None:
        raise InputError(f"data.{given[0]}: it counts training images; give their image set as data.real.")
    there = Counter({name: len(_train(real, name)) for name in classes})
    if fill_to is not None:
        counts = {name: max(0, fill_to - there[name]) for name in classes}
        value: float = fill_to
    else:
        value = match if match is not None else 0
        if not 0 < value < math.inf:
            raise InputError(f"data.match: {value} must be above 0.")
        counts = {name: round(value * there[name]) for name in classes}
    if not sum(counts.values()):
        has = ", ".join(f"{there[name]:,} {name}" for name in classes)
        raise InputError(f"data.{given[0]}: {value} asks for no image, as {real.root} has {has} in its train split.")
    return counts


def _train(real: ImageSet, class_name: str) -> list[Record]:
    label_by = lesions.label_by([class_name])
    return [record for record in real.split("train") if record.class_name(label_by) == class_name]

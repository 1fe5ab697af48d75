"""What an audit found: a result a question, per class and overall, as `audit.json` holds it. No torch."""

import json
import math
import types
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from dermsynth.audit.answers import Artefacts, Labels, Membership, Readings, TwoSample
from dermsynth.audit.estimates import Estimate
from dermsynth.errors import InputError
from dermsynth.files import read_json, write_atomically

FILE = "audit.json"
#: Fewer images than this tell little; a sentence says so.
FEW = 20


@dataclass(frozen=True)
class FidelityRow:
    """One measure, of one class or overall; None where too few images define it.

    Args:
        measure: one of `fidelity.MEASURES`.
        class_name: blank for all images.
        n_real: train images.
        n_synthetic: generated images.
        value: of the generated images against the train images.
        sd: of KID, over its subsets.
        low: of IRS, the lower end of its 95 % interval.
        high: the upper end.
        n_half: images per side in what follows; the mean over the repeats, as halves of patients differ.
        matched: as many generated images as in the floor against one half of the patients; mean over the repeats.
        matched_sd: over the repeats.
        floor: the other half of the patients against the same; mean over the repeats.
        floor_sd: over the repeats.
    """

    measure: str
    class_name: str
    n_real: int
    n_synthetic: int
    value: float | None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    n_half: float | None = None
    matched: float | None = None
    matched_sd: float | None = None
    floor: float | None = None
    floor_sd: float | None = None


@dataclass(frozen=True)
class Fidelity:
    """Does it look like the real thing?

    Args:
        nearest: k of precision, recall, density and coverage.
        repeats: how often the patients are halved.
        limit: the most images per side that are looked at, taken at random from more.
        rows: overall and then per class, in the order of the measures.
    """

    nearest: int
    repeats: int
    limit: int
    rows: tuple[FidelityRow, ...]


@dataclass(frozen=True)
class Threshold:
    """The distance below which a generated image is called a copy.

    Args:
        measure: one of `copies.MEASURES`.
        below: None without held-out images, and then nothing is called a copy.
        rate: the probability that a held-out image is called one by this measure.
    """

    measure: str
    below: float | None
    rate: float


@dataclass(frozen=True)
class CopiesRow:
    """How many are called copies, of one class or overall.

    Args:
        class_name: blank for all images.
        n: generated images.
        copies: of them called copies.
        share: of them, with Wilson's interval.
        by_measure: how many each measure calls so; an image may be by several.
        train_images: different train images that they are copies of.
    """

    class_name: str
    n: int
    copies: int
    share: Estimate
    by_measure: dict[str, int]
    train_images: int


@dataclass(frozen=True)
class Copies:
    """Is it somebody's photograph?

    Args:
        false_alarms: the rate that was asked for.
        reached: the most that all measures together have; above what was asked for where there are too few held-out
            images, None where there are none.
        n_held_out: images of val and test that the thresholds are from.
        left_out: others that prepare found to be near-duplicates of train images.
        n_train: train images that were searched.
        thresholds: one a measure.
        rows: overall and then per class.
    """

    false_alarms: float
    reached: float | None
    n_held_out: int
    left_out: int
    n_train: int
    thresholds: tuple[Threshold, ...]
    rows: tuple[CopiesRow, ...]


@dataclass(frozen=True)
class AuditResult:
    """All that was asked and found; a question that was not asked is None.

    Args:
        real: name of the folder of the real set.
        synthetic: names of the folders of the generated sets.
        features: name of the extractor.
        label_by: the column that classes are taken by.
        seed: of what is taken at random.
        n_train: real train images.
        n_held_out: real images of val and test.
        n_synthetic: generated images.
        foreign: names of generated sets whose generator is not known to have been fitted on these train images.
        fidelity: does it look like the real thing?
        copies: is it somebody's photograph?
        membership: was this patient in the training set? Of each checkpoint that was given.
        labels: does it show what its label says?
        two_sample: can it be told from the real thing?
        artefacts: are known artefacts as frequent?
        readings: are readers able to tell?
    """

    real: str
    synthetic: tuple[str, ...]
    features: str
    label_by: str
    seed: int
    n_train: int
    n_held_out: int
    n_synthetic: int
    foreign: tuple[str, ...] = ()
    fidelity: Fidelity | None = None
    copies: Copies | None = None
    membership: tuple[Membership, ...] | None = None
    labels: Labels | None = None
    two_sample: TwoSample | None = None
    artefacts: Artefacts | None = None
    readings: Readings | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The result of plain values.

        Raises:
            TypeError: they are none of a result.
        """
        return _build(cls, values)

    def write(self, folder: Path) -> None:
        """Write audit.json into a folder."""
        write_atomically(folder / FILE, json.dumps(_finite(self.to_dict()), indent=2, allow_nan=False) + "\n")


def read(folder: Path) -> AuditResult:
    """The result in a folder.

    Raises:
        InputError: there is none, or another version wrote it.
    """
    file = folder / FILE
    values = read_json(file, "Audit again.")
    try:
        return AuditResult.from_dict(values)
    except (TypeError, AttributeError) as error:
        raise InputError(f"{file}: not as this version writes it ({error}). Audit again.") from error


def _build(kind: Any, value: Any) -> Any:
    """A value of a type that dataclasses, tuples, mappings, None and plain types make up."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        known = {field.name for field in fields(kind)}
        return kind(**{name: _build(hints[name], item) if name in known else item for name, item in value.items()})
    inner = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        (one,) = [option for option in inner if option is not type(None)]
        return None if value is None else _build(one, value)
    if get_origin(kind) is tuple:
        return tuple(_build(inner[0], item) for item in value)
    if get_origin(kind) is dict:
        return {key: _build(inner[1], item) for key, item in value.items()}
    return value


def _finite(value: Any) -> Any:
    """NaN and infinity, which JSON does not know, as None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

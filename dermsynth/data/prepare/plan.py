"""How the images of a set get their group and split: one of the ways of `splits` or `official`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dermsynth.data.prepare import official, splits
from dermsynth.data.prepare.splits import Link
from dermsynth.data.sets.manifest import Record

Straddling = Literal["report", "move"]


@dataclass(frozen=True)
class Plan:
    """How images get their group and split.

    Args:
        policy: keep an official split, or deal whole groups by shares or to folds.
        fractions: shares of train, val and test.
        folds: how many, or None to deal by shares.
        straddling: what becomes of groups that an official split tears apart.
        seed: of the draw.
    """

    policy: Literal["official", "grouped"]
    fractions: tuple[float, ...]
    folds: int | None
    straddling: Straddling
    seed: int

    def check(self, records: Sequence[Record], known: Sequence[Link]) -> None:
        """Raise what `deal` would, before hours of resizing; near-duplicates are not known yet.

        Args:
            records: with their official split, if there is one.
            known: pairs of image ids of one patient or lesion that the records themselves do not say it of.
        """
        names = splits.groups(records, known)
        if self.folds is not None:
            splits.check_folds(names, self.folds, self.seed)
        elif self.policy == "grouped":
            kept = _unlabelled_tests(records, names)
            if left := [name for name in names if name not in kept]:
                splits.check_shares(left, self.fractions, self.seed)
        else:
            if self.straddling == "report":
                official.keep(records, known, [])
            if not any(record.split == "val" for record in records):
                splits.check_fractions(self.fractions)
                train = [name for record, name in zip(records, names, strict=True) if record.split == "train"]
                splits.check_shares(train, self._shares_without_test(), self.seed)

    def deal(self, records: Sequence[Record], known: Sequence[Link], near: Sequence[Link]) -> list[Record]:
        """The records with their group and split, and their fold if there are any.

        Args:
            records: as for `check`.
            known: as for `check`.
            near: pairs of image ids of near-duplicates.
        """
        same = splits.identical(records)
        if self.policy == "official":
            records = self._with_val(records, [*known, *same, *near])
        if self.policy == "official" and self.straddling == "report":
            # Near-duplicates stay, as nobody can be sure of them; the same file in train and test is never right.
            names, (_, dealt) = official.keep(records, known, near), official.move(records, [*known, *same])
        elif self.policy == "official":
            names, dealt = official.move(records, [*known, *same, *near])
        else:
            names = splits.groups(records, [*known, *same, *near])
            if self.folds is not None:
                return self._deal_folds(records, names, self.folds)
            dealt = self._deal_shares(records, names)
        return [replace(r, group=g, split=s) for r, g, s in zip(records, names, dealt, strict=True)]

    def _with_val(self, records: Sequence[Record], links: Sequence[Link]) -> Sequence[Record]:
        """An official split that has no val part gets one, of whole groups of its train part."""
        if any(record.split == "val" for record in records):
            return records
        # By all that is known of groups: what belongs to a test image is no one's to validate on either.
        names = splits.groups(records, links)
        tested = {name for record, name in zip(records, names, strict=True) if record.split == "test"}
        free = [
            number
            for number, (record, name) in enumerate(zip(records, names, strict=True))
            if record.split == "train" and name not in tested
        ]
        dealt = splits.grouped_split(
            [records[n] for n in free], [names[n] for n in free], self._shares_without_test(), self.seed
        )
        with_val = list(records)
        for number, split in zip(free, dealt, strict=True):
            with_val[number] = replace(records[number], split=split)
        return with_val

    def _shares_without_test(self) -> tuple[float, float, float]:
        train, val, _ = self.fractions
        return train / (train + val), val / (train + val), 0.0

    def _deal_shares(self, records: Sequence[Record], names: Sequence[str]) -> list[str]:
        kept = _unlabelled_tests(records, names)
        dealt = ["test"] * len(records)
        if left := [number for number, name in enumerate(names) if name not in kept]:
            their_records, their_names = [records[n] for n in left], [names[n] for n in left]
            found = splits.grouped_split(their_records, their_names, self.fractions, self.seed)
            for number, split in zip(left, found, strict=True):
                dealt[number] = split
        return dealt

    def _deal_folds(self, records: Sequence[Record], names: Sequence[str], folds: int) -> list[Record]:
        numbers = splits.deal_folds(records, names, folds, self.seed)
        return [
            replace(
                record,
                group=name,
                split=splits.split_of_fold(number, 0, folds),
                extra={**record.extra, splits.FOLD: str(number)},
            )
            for record, name, number in zip(records, names, numbers, strict=True)
        ]


def _unlabelled_tests(records: Sequence[Record], names: Sequence[str]) -> set[str]:
    """The groups with images of an official test part whose labels nobody has: they are not dealt by shares.

    In train they would teach nothing, and a share of the labelled images would go to test in their place.
    """
    return {
        name
        for record, name in zip(records, names, strict=True)
        if record.split == "test" and not record.diagnosis and record.malignant is None
    }

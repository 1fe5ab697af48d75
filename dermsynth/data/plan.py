"""How the images of a set get their group and split: one of the ways of `splits` or `official`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dermsynth.data import official, splits
from dermsynth.data.manifest import Record

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

    def check(self, records: Sequence[Record]) -> None:
        """Raise what `deal` would, before hours of resizing; near-duplicates are not known yet."""
        names = splits.groups(records)
        if self.folds is not None:
            splits.check_folds(names, self.folds, self.seed)
        elif self.policy == "grouped":
            splits.check_shares(names, self.fractions, self.seed)
        elif self.straddling == "report":
            official.keep(records, [])

    def deal(self, records: Sequence[Record], links: Sequence[tuple[str, str]]) -> list[Record]:
        """The records with their group and split, and their fold if there are any."""
        if self.policy == "official" and self.straddling == "report":
            names, dealt = official.keep(records, links), [record.split for record in records]
        elif self.policy == "official":
            names, dealt = official.mend(records, links)
        else:
            names = splits.groups(records, links)
            if self.folds is not None:
                return self._deal_folds(records, names, self.folds)
            dealt = splits.grouped_split(records, names, self.fractions, self.seed)
        return [replace(r, group=g, split=s) for r, g, s in zip(records, names, dealt, strict=True)]

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

"""Is it somebody's photograph? The nearest train image of each generated one, judged by what held-out patients give.

No distance means anything by itself among images as alike as dermoscopy. So the same search is made for the real images
of val and test, whose patients the generator has not seen: a generated image is called a copy where it is nearer to a
train image than all but a stated share of these are.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from dermsynth.audit.estimates import wilson
from dermsynth.audit.features import Features
from dermsynth.audit.nearest import Nearest, search
from dermsynth.audit.result import Copies, CopiesRow, Threshold
from dermsynth.audit.seen import Seen
from dermsynth.data.sets import manifest
from dermsynth.data.sets.manifest import ImageSet
from dermsynth.files import write_atomically

TABLE = "copies.csv"
#: What the column `excluded` says of an image that the audit calls a copy.
REASON = "copy"
FALSE_ALARMS = 0.01
MEASURES = ("pixels", "relative", "features")
PIXELS, FEATURES = 0, 2

Distances = NDArray[np.float64]


@dataclass(frozen=True)
class Search:
    """What the search found of the N images of a side.

    Args:
        seen: the images.
        nearest: in pixels.
        in_features: the place of the nearest train image in features, int64 `[N]`.
        its_view: which of that image's views it is nearest to, int64 `[N]`.
        distances: float64 `[N, 3]`, a column a measure.
    """

    seen: Seen
    nearest: Nearest
    in_features: NDArray[np.int64]
    its_view: NDArray[np.int64]
    distances: Distances


@dataclass(frozen=True)
class Verdicts:
    """Of each generated image whether it is called a copy, and by which measure.

    Args:
        search: of the generated images.
        beyond: bool `[N, 3]`, which measures call it a copy.
        result: of all of them together.
    """

    search: Search
    beyond: NDArray[np.bool_]
    result: Copies

    @property
    def copies(self) -> NDArray[np.bool_]:
        """Which are called copies, bool `[N]`."""
        return np.asarray(self.beyond.any(axis=1))

    @property
    def by_features_alone(self) -> NDArray[np.bool_]:
        """Which are called copies by the distance in features and by no other, bool `[N]`."""
        return np.asarray(self.beyond[:, FEATURES] & (self.beyond.sum(axis=1) == 1))

    @property
    def originals(self) -> NDArray[np.int64]:
        """The place of the train image that each is a copy of, or nearest to, int64 `[N]`."""
        return np.where(self.by_features_alone, self.search.in_features, self.search.nearest.train)


def find_copies(generated: Seen, held_out: Seen | None, train: Seen) -> Verdicts:
    """Search and judge.

    Args:
        generated: the generated images.
        held_out: the real ones of val and test; None where there are none, and then nothing is called a copy.
        train: the train images.
    """
    found = _search(generated, train)
    known = _known_copies(train.side.sets[0])
    others = np.empty((0, len(MEASURES)))
    left_out = 0
    if held_out:
        ids = [record.image_id for record in held_out.side.records]
        clean = np.array([name not in known for name in ids])
        left_out = int((~clean).sum())
        others = _search(held_out, train).distances[clean]
    thresholds = tuple(
        threshold(name, others[:, column], FALSE_ALARMS / len(MEASURES)) for column, name in enumerate(MEASURES)
    )
    limits = np.array([-math.inf if limit.below is None else limit.below for limit in thresholds])
    beyond = np.asarray(found.distances < limits)
    verdicts = Verdicts(
        found,
        beyond,
        Copies(
            false_alarms=FALSE_ALARMS,
            reached=sum(limit.rate for limit in thresholds) if others.size else None,
            n_held_out=len(others),
            left_out=left_out,
            n_train=len(train.features),
            thresholds=thresholds,
            rows=(),
        ),
    )
    return replace(verdicts, result=replace(verdicts.result, rows=_rows(verdicts)))


def _rows(verdicts: Verdicts) -> tuple[CopiesRow, ...]:
    """Counts overall and then per class."""
    classes, judged = verdicts.search.seen.side.classes, verdicts.copies
    rows = []
    for name in ["", *sorted({str(name) for name in classes} - {""})]:
        chosen = classes == name if name else np.ones(len(classes), bool)
        rows.append(
            CopiesRow(
                class_name=name,
                n=int(chosen.sum()),
                copies=int(judged[chosen].sum()),
                share=wilson(int(judged[chosen].sum()), int(chosen.sum())),
                by_measure={m: int(verdicts.beyond[chosen, column].sum()) for column, m in enumerate(MEASURES)},
                train_images=len(np.unique(verdicts.originals[chosen & judged])),
            )
        )
    return tuple(rows)


def threshold(measure: str, held_out: Distances, rate: float) -> Threshold:
    """The distance below which an image is called a copy, so that a held-out one is with at most this probability.

    The k-th smallest of n held-out distances, k = ⌊rate · (n + 1)⌋: another one is below it with probability
    k / (n + 1), whatever the distribution (conformal prediction, Vovk et al. 2005). Fewer than 1 / rate - 1 of them
    cannot keep the rate; k is then 1, and the rate said is what it becomes.

    Args:
        measure: its name.
        held_out: `[n]`.
        rate: of false alarms.
    """
    n = len(held_out)
    if not n:
        return Threshold(measure, None, 0.0)
    k = max(1, math.floor(rate * (n + 1)))
    return Threshold(measure, float(np.sort(held_out)[k - 1]), k / (n + 1))


def write_table(verdicts: Verdicts, train: Seen, out: Path) -> None:
    """Write copies.csv: a row a generated image, the likeliest copies first."""
    found, generated = verdicts.search, verdicts.search.seen.side
    ids = [record.image_id for record in train.side.records]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["set", "image_id", "class", "verdict", "by", *MEASURES, "nearest_in_pixels", "nearest_in_features"]
    )
    for place in ranking(verdicts):
        number, record = generated.images[place]
        by = [name for name, beyond in zip(MEASURES, verdicts.beyond[place], strict=True) if beyond]
        writer.writerow(
            [
                generated.sets[number].root.name,
                record.image_id,
                record.class_name(generated.label_by),
                REASON if by else "",
                " ".join(by),
                *(f"{distance:.4f}" for distance in found.distances[place]),
                ids[found.nearest.train[place]],
                ids[found.in_features[place]],
            ]
        )
    write_atomically(out / TABLE, text.getvalue())


def ranking(verdicts: Verdicts) -> list[int]:
    """The places of the generated images, copies first, then by their distance in pixels."""
    order = np.lexsort((verdicts.search.distances[:, 0], ~verdicts.copies))
    return [int(place) for place in order]


def exclude(verdicts: Verdicts) -> int:
    """Write the verdicts into the column `excluded` of the generated sets, which mixing obeys.

    An image that is no copy any more is shown again; one that is excluded for another reason stays so.

    Returns:
        How many are excluded as copies.
    """
    generated = verdicts.search.seen.side
    for number, images in enumerate(generated.sets):
        copies = {
            record.image_id
            for (place, record), copy in zip(generated.images, verdicts.copies, strict=True)
            if copy and place == number
        }
        manifest.write(
            images.root, [_excluded(record, record.image_id in copies) for record in images.records], images.info
        )
    return int(verdicts.copies.sum())


def _excluded(record: manifest.Record, copy: bool) -> manifest.Record:
    reason = record.extra.get(manifest.EXCLUDED, "")
    kept = "" if reason == REASON else reason
    return replace(record, extra={**record.extra, manifest.EXCLUDED: kept or (REASON if copy else "")})


def _search(seen: Seen, train: Seen) -> Search:
    """Both searches: in pixels, and in features for the nearest of the train images' views."""
    found = search(seen.centres, train.thumbnails, train.owners)
    apart, places, views = nearest_in_features(seen.features, train.views)
    distances = np.stack([found.pixels, found.relative, apart], axis=1).astype(np.float64)
    return Search(seen, found, places, views, distances)


def nearest_in_features(features: Features, views: Features) -> tuple[Features, NDArray[np.int64], NDArray[np.int64]]:
    """How far the nearest train image is from each image, in the likest of its views, and which that is.

    Args:
        features: `[N, D]`.
        views: of M train images, `[V, M, D]`.

    Returns:
        Distances, places and numbers of the views, `[N]` each.
    """
    count, width = views.shape[1:]
    index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(views.reshape(-1, width))
    distances, places = index.kneighbors(features)
    view, place = np.divmod(places[:, 0], count)
    return distances[:, 0], place, view


def _known_copies(real: ImageSet) -> set[str]:
    """Ids of held-out images of which prepare found a near-duplicate in train: they say nothing about strangers."""
    split = {record.image_id: record.split for record in real.records}
    found = real.info.get("near_duplicates", {})
    pairs: Sequence[Sequence[str]] = found.get("pairs", []) if isinstance(found, dict) else []
    return {a for one, other in pairs for a, b in ((one, other), (other, one)) if split.get(b) == "train"}

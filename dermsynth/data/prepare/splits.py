"""Groups that must stay together, and the stratified splits and folds that keep each of them whole."""

import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dermsynth.data.sets.manifest import IMAGE_GROUP, ImageSet, Record
from dermsynth.errors import InputError

SPLIT_NAMES = ("train", "val", "test")
FOLD = "fold"
Link = tuple[str, str]  # ids of two images that belong together
IntArray = NDArray[np.int64]
_WAYS = 100
# How far a share of the images may be off, of the whole or of a stratum.
_CLOSE = 0.005


def groups(records: Sequence[Record], links: Iterable[Link] = ()) -> list[str]:
    """The group of each record: images of one patient or lesion, or linked, belong together, transitively.

    Args:
        records: their `group` is not read.
        links: pairs of image ids that belong together for another reason, such as being near-duplicates.

    Returns:
        One name a record, in order: a patient id, else a lesion id, else `IMAGE_GROUP` and an image id of
        the group, of whatever split that image is.
    """
    from scipy.cluster.hierarchy import DisjointSet  # half a second to import, which `fit` need not wait for

    sets = DisjointSet(("image", record.image_id) for record in records)
    for record in records:
        image = ("image", record.image_id)
        for owner in (("patient", record.patient_id), ("lesion", record.lesion_id)):
            if owner[1]:
                sets.add(owner)
                sets.merge(owner, image)
    for link in links:
        first, second = (("image", name) for name in link)
        sets.add(first)
        sets.add(second)
        sets.merge(first, second)
    roots = [sets[("image", record.image_id)] for record in records]
    # The least name of the best kind, so that it does not depend on the order of the rows.
    names: dict[Hashable, tuple[int, str]] = {}
    for record, root in zip(records, roots, strict=True):
        kinds = (record.patient_id, record.lesion_id, f"{IMAGE_GROUP}{record.image_id}")
        name = next((rank, value) for rank, value in enumerate(kinds) if value)
        names[root] = min(name, names.get(root, name))
    return [names[root][1] for root in roots]


def identical(records: Sequence[Record]) -> list[Link]:
    """Pairs of images whose files are the same byte for byte; those without a hash yet are like no other."""
    first: dict[str, str] = {}
    return [
        (first[record.sha256], record.image_id)
        for record in records
        if record.sha256 and first.setdefault(record.sha256, record.image_id) != record.image_id
    ]


def stratum(record: Record) -> str:
    """What the split keeps in proportion: diagnosis and malignancy together."""
    return f"{record.diagnosis or 'unknown'}/{'?' if record.malignant is None else record.malignant}"


def grouped_split(
    records: Sequence[Record], group_names: Sequence[str], fractions: Sequence[float], seed: int
) -> list[str]:
    """Deal whole groups to train, val and test, each with about the same share of every stratum.

    The groups are dealt to stratified folds, and folds to splits in a hundred random ways; taken is the way
    with the fewest strata missing from a split, then with the shares of images and strata closest to what is
    asked (half a point, or one image, is close enough), then with the most groups in the smallest split. The result
    depends on the image ids and the seed, not on the order of the records; a small set may have one best way
    for every seed.

    Args:
        records: what to split.
        group_names: the group of each record.
        fractions: of the images in train, val and test; they sum to 1, and val or test may be 0.
        seed: of the draw.

    Returns:
        The split's name for each record, in order.

    Raises:
        InputError: wrong fractions, or fewer groups than splits.
    """
    check_shares(group_names, fractions, seed)
    if not any(fractions[1:]):
        return ["train"] * len(records)
    order, strata, members = _numbered(records, group_names)
    random = np.random.RandomState(seed)
    used = sum(fraction > 0 for fraction in fractions)
    # No fold is empty, and where every stratum is smaller than the number of folds none can be kept.
    counts = _folds(fractions, min(len(set(group_names)), max(used, int(np.bincount(strata).max()))))
    fold_of = _stratified_folds(strata, members, sum(counts), random)
    result = np.empty(len(records), dtype=object)
    result[order] = _deal(fold_of, strata, members, counts, fractions, random)
    return result.tolist()


def check_shares(group_names: Sequence[str], fractions: Sequence[float], seed: int) -> None:
    """Raise what `grouped_split` would, before work is done that it would waste."""
    check_fractions(fractions)
    _check_seed(seed)
    wanted = [name for name, fraction in zip(SPLIT_NAMES, fractions, strict=True) if fraction > 0]
    distinct = len(set(group_names))
    if distinct < len(wanted):
        raise InputError(
            f"{distinct} patients or groups cannot be dealt to {len(wanted)} splits ({', '.join(wanted)}). "
            "Add images of other patients, or set a share of --fractions to 0."
        )


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise if these are no shares of train, val and test."""
    # Said as what must hold, as NaN is neither above nor below anything.
    if not (len(fractions) == 3 and min(fractions) >= 0 and fractions[0] > 0 and abs(sum(fractions) - 1) <= 1e-6):
        raise InputError(
            f"--fractions: {list(fractions)}; expected shares of train, val and test that sum to 1, "
            "such as [0.7,0.15,0.15]; none below 0, and train above 0."
        )


def deal_folds(records: Sequence[Record], group_names: Sequence[str], folds: int, seed: int) -> list[int]:
    """Deal whole groups to folds, each with about the same share of every stratum.

    Args:
        records: what to split.
        group_names: the group of each record.
        folds: how many.
        seed: of the draw.

    Returns:
        The fold of each record, from 0, in order.

    Raises:
        InputError: wrong number of folds, or fewer groups than folds.
    """
    check_folds(group_names, folds, seed)
    order, strata, members = _numbered(records, group_names)
    result = np.empty(len(records), dtype=np.int64)
    result[order] = _stratified_folds(strata, members, folds, np.random.RandomState(seed))
    return result.tolist()


def check_folds(group_names: Sequence[str], folds: int, seed: int) -> None:
    """Raise what `deal_folds` would, before work is done that it would waste."""
    _check_seed(seed)
    distinct = len(set(group_names))
    if not 3 <= folds <= distinct:
        raise InputError(
            f"--folds {folds}: expected 3 (one to test on, one to validate on, the others to train on) to {distinct}, "
            "the number of patients or groups."
        )


def split_of_fold(fold: int, tested: int, folds: int) -> str:
    """The split of an image of one fold when another one is tested on: the next one is for validation."""
    return {tested: "test", (tested + 1) % folds: "val"}.get(fold, "train")


def choose_fold(images: ImageSet, tested: int) -> ImageSet:
    """The set with its images split so that one fold is tested on, by its column `fold`.

    Raises:
        InputError: the set was not prepared with folds, or has no such fold.
    """
    numbers = {record.extra.get(FOLD, "") for record in images.records if record.split != "unused"}
    if not numbers or not all(number.isdecimal() for number in numbers):
        raise InputError(f"data.fold: {images.root} has no folds. Prepare it with --folds, or leave data.fold out.")
    folds = 1 + max(map(int, numbers))
    # Where all images of the last fold are in quarantine, only the settings know that it is there.
    stated = images.info.get("settings", {}).get("folds")
    if isinstance(stated, int):
        folds = max(folds, stated)
    if not 0 <= tested < folds:
        raise InputError(f"data.fold: {tested}; {images.root} has the folds 0 to {folds - 1}.")
    records = (
        record
        if record.split == "unused"
        else replace(record, split=split_of_fold(int(record.extra[FOLD]), tested, folds))
        for record in images.records
    )
    return replace(images, records=tuple(records))


def _numbered(records: Sequence[Record], group_names: Sequence[str]) -> tuple[IntArray, IntArray, IntArray]:
    """The order of the image ids, and in it stratum and group of each record as numbers."""
    order = np.array(sorted(range(len(records)), key=lambda i: records[i].image_id))
    _, strata = np.unique([stratum(records[i]) for i in order], return_inverse=True)
    _, members = np.unique([group_names[i] for i in order], return_inverse=True)
    return order, strata, members


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed}: expected 0 to 4294967295.")


def _folds(fractions: Sequence[float], most: int) -> list[int]:
    """How many folds go to train, val and test: as few as give each share within half a point, else come closest.

    For 0.7, 0.15, 0.15 that is 14, 3, 3. There are never more than 50, as the time grows with their number.
    """

    def off(counts: Sequence[int]) -> float:
        return max(abs(n / sum(counts) - share) for n, share in zip(counts, fractions, strict=True))

    ways = []
    for total in range(sum(share > 0 for share in fractions), min(most, 50) + 1):
        val, test = (max(1, round(total * share)) if share else 0 for share in fractions[1:])
        if val + test < total:
            ways.append([total - val - test, val, test])
    return next((counts for counts in ways if off(counts) <= _CLOSE), min(ways, key=off))


def _stratified_folds(strata: IntArray, members: IntArray, folds: int, random: np.random.RandomState) -> IntArray:
    # Imported here: it takes a second, and neither --help nor the processes that resize need it.
    from sklearn.model_selection import StratifiedGroupKFold

    fold_of = np.zeros(len(strata), dtype=np.int64)
    # scikit-learn refuses when every stratum is smaller than the number of folds; nothing to stratify then.
    if np.bincount(strata).max() < folds:
        strata = np.zeros_like(strata)
    # It also warns when one stratum is that small, as rare ones are.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        folder = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=random)
        for fold, (_, chosen) in enumerate(folder.split(strata, strata, members)):
            fold_of[chosen] = fold
    return fold_of


def _deal(
    fold_of: IntArray,
    strata: IntArray,
    members: IntArray,
    counts: Sequence[int],
    fractions: Sequence[float],
    random: np.random.RandomState,
) -> NDArray[np.str_]:
    """Give folds to splits, in the best of a hundred random ways."""
    folds = sum(counts)
    # Images of each stratum, of all, and groups, in each fold: all that a way is judged by.
    images = np.zeros((folds, strata.max() + 2), dtype=np.int64)
    np.add.at(images, (fold_of, strata), 1)
    images[:, -1] = images.sum(axis=1)
    sizes = np.array([len(np.unique(members[fold_of == fold])) for fold in range(folds)])
    split_of_place = np.repeat(np.arange(len(SPLIT_NAMES)), counts)
    used = [split for split, count in enumerate(counts) if count]
    wanted = np.outer(fractions, images.sum(axis=0))
    allowed = np.maximum(1, _CLOSE * images.sum(axis=0))
    best, best_score = split_of_place, (np.inf, np.inf, np.inf)
    for _ in range(_WAYS):
        way = random.permutation(split_of_place)
        dealt = np.stack([images[way == split].sum(axis=0) for split in range(len(SPLIT_NAMES))])
        gaps = int((dealt[used] == 0).sum())
        off = float(np.maximum(np.abs(dealt - wanted) - allowed, 0).sum())
        smallest = min(int(sizes[way == split].sum()) for split in used)
        if (gaps, off, -smallest) < best_score:
            best, best_score = way, (gaps, off, -smallest)
    return np.array(SPLIT_NAMES)[best[fold_of]]

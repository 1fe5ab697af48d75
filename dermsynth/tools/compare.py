"""`python -m dermsynth compare`: the runs of two or more arms, on the same images, to one table."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from dermsynth.errors import InputError
from dermsynth.evaluation import statistics
from dermsynth.evaluation.comparison import ENSEMBLE, MEAN, Comparison, Row
from dermsynth.evaluation.report import write
from dermsynth.evaluation.runs import Run, notes, read_arms
from dermsynth.evaluation.statistics import Floats, Metric

DEFAULT_BASELINES = ("real", "baseline")

Measured = dict[Metric, Floats]
Seeds = dict[int | None, Measured]


def compare(
    runs: list[Path],
    out: Path,
    baseline: str | None = None,
    primary: Literal["accuracy", "auroc", "balanced_accuracy"] = "accuracy",
) -> None:
    """Compare the runs of two or more arms on the same test images: table, intervals, paired tests, plot.

    Each run folder holds the predictions.csv that `test` writes. A folder ARM-seedN is seed N of arm ARM.
    Prints the table and writes comparison.txt, comparison.csv and comparison.png.

    Args:
        runs: run folders of at least two arms.
        out: folder for the results; made if it is not there.
        baseline: the arm that the others are compared with. Default: `real` or `baseline` if there is one,
            else the first arm.
        primary: the metric that the conclusion is about; choose it before the runs.
    """
    print(write(compare_arms(read_arms(runs), baseline, primary), out), end="")
    print(f"\nWritten: {out / 'comparison.txt'}, {out / 'comparison.csv'}, {out / 'comparison.png'}")


def compare_arms(arms: Mapping[str, Sequence[Run]], baseline: str | None, primary: str) -> Comparison:
    """Measure every arm, and every arm against the baseline.

    Args:
        arms: the runs of each arm, all of the same images.
        baseline: name of an arm, or None for the default.
        primary: name of an overall metric.

    Raises:
        InputError: fewer than two arms or groups, an unknown baseline, or a primary metric that this test set
            cannot define.
    """
    baseline, reason = _baseline(list(arms), baseline)
    arms = {baseline: arms[baseline], **arms}
    first = arms[baseline][0]
    labels, groups, classes = first.label_index, first.group_index, first.classes
    n_groups = int(groups.max()) + 1
    if n_groups < 2:
        raise InputError(f"{first.path}: all images are of one patient or lesion; an interval needs two or more.")
    # Row 0 is the test set as it is, the others are its resamples.
    weights = np.vstack([np.ones(n_groups), statistics.resampling_weights(n_groups)])
    of_seeds: dict[str, Seeds] = {
        arm: {run.seed: statistics.measure(run.probabilities, labels, groups, weights, classes) for run in runs}
        for arm, runs in arms.items()
    }
    # What is not defined depends on the images alone, so any one run tells.
    of_first = of_seeds[baseline][first.seed]
    if np.isnan(of_first[Metric(primary)][0]):
        empty = [name for index, name in enumerate(classes) if not (labels == index).any()]
        raise InputError(
            f"{first.path}: {primary} is not defined, as no image is of class {', '.join(empty)}. "
            "Test on images of every class, or choose --primary accuracy."
        )
    rows: list[Row] = []
    for arm, runs in arms.items():
        against = () if arm == baseline else arms[baseline]
        partners = {run.seed: run.probabilities for run in against}
        rows += _mean_rows(arm, of_seeds[arm], of_seeds[baseline] if against else None)
        rows += _exact_rows(arm, ENSEMBLE, first, _ensemble(runs), _ensemble(against) if against else None)
        for run in runs:
            rows += _exact_rows(arm, _seed_name(run), first, run.probabilities, partners.get(run.seed))
    return Comparison(
        rows=_adjust(rows, primary),
        arms={arm: len(runs) for arm, runs in arms.items()},
        baseline=baseline,
        baseline_reason=reason,
        primary=primary,
        class_counts={name: int(np.count_nonzero(labels == index)) for index, name in enumerate(classes)},
        n_images=len(labels),
        n_groups=n_groups,
        n_without_id=first.n_without_id,
        splits=tuple(sorted(set(first.splits))),
        resamples=statistics.RESAMPLES,
        undefined=max(int(np.isnan(v[1:]).sum()) for v in of_first.values() if not np.isnan(v[0])),
        notes=tuple(notes(arms)),
    )


def _baseline(arms: Sequence[str], wanted: str | None) -> tuple[str, str]:
    if len(arms) < 2:
        raise InputError(
            f"compare needs runs of at least two arms; found {', '.join(arms) or 'none'}. "
            "Give the runs of another arm too, in folders named ARM-seedN."
        )
    if wanted is not None:
        if wanted not in arms:
            raise InputError(f"--baseline {wanted}: no such arm; the runs are of {', '.join(arms)}.")
        return wanted, "as asked"
    for name in DEFAULT_BASELINES:
        if name in arms:
            return name, "by its name"
    return arms[0], "the first given"


def _mean(measured: Sequence[Measured]) -> Measured:
    return {metric: np.mean([of_seed[metric] for of_seed in measured], axis=0) for metric in measured[0]}


def _ensemble(runs: Sequence[Run]) -> Floats:
    return np.mean([run.probabilities for run in runs], axis=0)


def _sd(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _mean_rows(arm: str, seeds: Seeds, baseline: Seeds | None) -> list[Row]:
    """The mean over an arm's seeds with its interval, and its paired difference from the baseline's mean."""
    rows = []
    mean, of_baseline = _mean(list(seeds.values())), _mean(list(baseline.values())) if baseline else None
    for metric, values in mean.items():
        low, high = statistics.percentile_interval(values[1:])
        sd = _sd([seed[metric][0] for seed in seeds.values()])
        row = Row(arm, MEAN, *metric, value=float(values[0]), sd=sd, low=low, high=high)
        if baseline and of_baseline:
            difference = values - of_baseline[metric]
            low, high = statistics.percentile_interval(difference[1:])
            pairs = [seeds[n][metric][0] - baseline[n][metric][0] for n in seeds if n in baseline]
            row = replace(
                row,
                difference=float(difference[0]),
                difference_sd=_sd(pairs),
                difference_low=low,
                difference_high=high,
                smallest_difference=statistics.smallest_difference(difference[1:]),
                test="paired bootstrap of groups",
                p=statistics.bootstrap_p(difference[1:]),
            )
        rows.append(row)
    return rows


def _exact_rows(arm: str, seeds: str, images: Run, probabilities: Floats, baseline: Floats | None) -> list[Row]:
    """Plain metrics of one set of probabilities; exact McNemar and DeLong against another of these images."""
    labels, classes = images.label_index, images.classes
    once = np.ones((1, 1))
    one_group = np.zeros_like(labels)
    values = statistics.measure(probabilities, labels, one_group, once, classes)
    rows = [Row(arm, seeds, *metric, value=float(value[0])) for metric, value in values.items()]
    if baseline is None:
        return rows
    of_baseline = statistics.measure(baseline, labels, one_group, once, classes)
    return [
        _test(
            replace(row, difference=row.value - float(of_baseline[metric][0])),
            metric,
            images,
            probabilities,
            baseline,
        )
        for row, metric in zip(rows, values, strict=True)
    ]


def _test(row: Row, metric: Metric, images: Run, probabilities: Floats, baseline: Floats) -> Row:
    labels, classes = images.label_index, images.classes
    if metric.name == "accuracy":
        result = statistics.mcnemar(baseline.argmax(axis=1) == labels, probabilities.argmax(axis=1) == labels)
        return replace(
            row,
            test="exact McNemar",
            p=result.p,
            only_baseline_correct=result.only_first,
            only_arm_correct=result.only_second,
        )
    # The mean of several areas has no DeLong test; two classes have one area.
    if metric.name == "auroc" and (metric.class_name or len(classes) == 2):
        index = classes.index(metric.class_name) if metric.class_name else 1
        p = statistics.delong(baseline[:, index], probabilities[:, index], labels == index)
        return replace(row, test="DeLong", p=p)
    return row


def _adjust(rows: Sequence[Row], primary: str) -> tuple[Row, ...]:
    """Holm over the arms: one p an arm, that of its mean over seeds on the primary metric."""
    family = {
        i: r.p
        for i, r in enumerate(rows)
        if (r.seeds, r.metric, r.class_name) == (MEAN, primary, "") and r.p is not None
    }
    adjusted = list(rows)
    for index, p in zip(family, statistics.holm(list(family.values())), strict=True):
        adjusted[index] = replace(rows[index], p_holm=float(p))
    return tuple(adjusted)


def _seed_name(run: Run) -> str:
    return "seed -" if run.seed is None else f"seed {run.seed}"

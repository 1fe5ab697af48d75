"""`python -m dermsynth compare`: the runs of two or more arms, on the same images, to one table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from dermsynth import made_from
from dermsynth.data.sets.manifest import DATASET, METADATA
from dermsynth.errors import InputError
from dermsynth.evaluation import statistics
from dermsynth.evaluation.comparison import ENSEMBLE, GENERATOR, MEAN, Comparison, Row
from dermsynth.evaluation.runs import PREDICTIONS, Run, notes, read_arms, without_control
from dermsynth.evaluation.statistics import MARGIN_LEVEL, Floats, Metric
from dermsynth.report.text import write
from dermsynth.run.config import RUN_FILE
from dermsynth.run.lock import COMPARE_LOCK, locked

DEFAULT_BASELINES = ("real", "baseline")

_T = TypeVar("_T")
Measured = dict[Metric, Floats]
#: What each run of an arm measures, by its seed and its generator's.
Seeds = dict[tuple[int | None, int | None], Measured]


def compare(
    runs: list[Path],
    out: Path,
    baseline: str | None = None,
    primary: Literal["accuracy", "auroc", "balanced_accuracy"] = "accuracy",
    margin: float | None = None,
    family: list[str] | None = None,
) -> None:
    """Compare the runs of two or more arms on the same test images: table, intervals, paired tests, plot.

    Each run folder holds the predictions.csv that `test` writes. Its fit.yaml says of which arm and seed it is (`fit
    --arm NAME`), and which generator's images it was shown; without an arm there, a folder ARM-seedN is seed N of arm
    ARM.
    Prints the table and writes comparison.txt, comparison.csv and comparison.png.

    Args:
        runs: run folders of at least two arms.
        out: folder for the results; made if it is not there.
        baseline: the arm that the others are compared with. Default: `real` or `baseline` if there is one,
            else the first arm.
        primary: the metric that the conclusion is about; choose it before the runs.
        margin: the loss in the primary metric, as a fraction such as 0.02, that would count as no harm; choose it
            before the runs. An arm does no harm by it where the 90 % interval of its difference lies above it (two
            one-sided tests at 5 %).
        family: the arms that the study was planned to compare with the baseline; p is adjusted for their number, and
            of the others nothing is concluded. Default: all.

    Raises:
        InputError: the runs cannot be compared, or `out` holds a run or an image set.
    """
    _refuse_other(out)
    told = made_from.settings(locals(), inputs=["runs"])
    comparison = compare_arms(read_arms(runs), baseline, primary, margin, family)
    with locked(out, COMPARE_LOCK, "--out"):
        made_from.write(out, "compare", None)  # what was there is no longer of this, and this is not yet there
        print(write(comparison, out), end="")
        made_from.write(out, "compare", {"settings": told, "inputs": inputs_of(runs)})
    print(f"\nWritten: {out / 'comparison.txt'}, {out / 'comparison.csv'}, {out / 'comparison.png'}")


def _refuse_other(out: Path) -> None:
    for kind, names in {"a run": (RUN_FILE, PREDICTIONS), "an image set": (METADATA, DATASET)}.items():
        if any((out / name).exists() for name in names):
            raise InputError(f"--out {out}: it holds {kind}; give another folder.")


def inputs_of(runs: Sequence[Path]) -> dict[str, str]:
    """What a comparison reads of runs, by its content."""
    files = [run / name for run in runs for name in (PREDICTIONS, RUN_FILE)]
    return {f"{file.parent.name}/{file.name}": made_from.content(file) for file in files if file.is_file()}


def compare_arms(
    arms: Mapping[str, Sequence[Run]],
    baseline: str | None,
    primary: str,
    margin: float | None = None,
    family: Sequence[str] | None = None,
) -> Comparison:
    """Measure every arm, and every arm against the baseline.

    Args:
        arms: the runs of each arm, all of the same images.
        baseline: name of an arm, or None for the default.
        primary: name of an overall metric.
        margin: the loss that counts as no harm, a fraction.
        family: the arms that p is adjusted for; None for all but the baseline.

    Raises:
        InputError: fewer than two arms or groups, an unknown baseline or arm, a margin that is none, or a primary
            metric that this test set cannot define.
    """
    baseline, reason = _baseline(list(arms), baseline)
    if margin is not None and not 0 < margin < 1:
        raise InputError(f"--margin {margin:g}: expected a fraction above 0 and below 1, as 0.02 for two points.")
    others = [arm for arm in arms if arm != baseline]
    if unknown := [name for name in family or () if name not in others]:
        raise InputError(f"--family: {unknown[0]} is not an arm that is compared with {baseline}: {', '.join(others)}.")
    arms = {baseline: arms[baseline], **arms}
    first = arms[baseline][0]
    labels, groups, classes = first.label_index, first.group_index, first.classes
    n_groups = int(groups.max()) + 1
    if n_groups < 2:
        raise InputError(f"{first.path}: all images are of one patient or lesion; an interval needs two or more.")
    # Row 0 is the test set as it is, the others are its resamples.
    weights = np.vstack([np.ones(n_groups), statistics.resampling_weights(n_groups)])
    of_seeds: dict[str, Seeds] = {
        arm: {run.key: statistics.measure(run.probabilities, labels, groups, weights, classes) for run in runs}
        for arm, runs in arms.items()
    }
    # What is not defined depends on the images alone, so any one run tells.
    of_first = of_seeds[baseline][first.key]
    if np.isnan(of_first[Metric(primary)][0]):
        empty = [name for index, name in enumerate(classes) if not (labels == index).any()]
        raise InputError(
            f"{first.path}: {primary} is not defined, as no image is of class {', '.join(empty)}. "
            "Test on images of every class, or choose --primary accuracy."
        )
    rows: list[Row] = []
    for arm, runs in arms.items():
        against = () if arm == baseline else arms[baseline]
        partners = {run.key: run.probabilities for run in against}
        rows += _mean_rows(arm, of_seeds[arm], of_seeds[baseline] if against else None)
        rows += _generator_rows(arm, of_seeds[arm], of_seeds[baseline] if against else None)
        rows += _exact_rows(arm, ENSEMBLE, first, _ensemble(runs), _ensemble(against) if against else None)
        several = len(_generators(of_seeds[arm])) > 1
        for run in runs:
            rows += _exact_rows(arm, _seed_name(run, several), first, run.probabilities, _partner(partners, run.key))
    return Comparison(
        rows=_adjust(rows, primary, others if family is None else family),
        arms={arm: len({run.seed for run in runs}) for arm, runs in arms.items()},
        generators={arm: len(_generators(of_seeds[arm])) for arm in arms},
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
        margin=margin,
        family=tuple(others if family is None else family),
        without_control=tuple(without_control(arms)),
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
            partners = {key: _partner(baseline, key) for key in seeds}
            pairs = [seeds[key][metric][0] - of[metric][0] for key, of in partners.items() if of is not None]
            row = replace(
                row,
                difference=float(difference[0]),
                difference_sd=_sd(pairs),
                difference_low=low,
                difference_high=high,
                difference_low_90=statistics.percentile_interval(difference[1:], MARGIN_LEVEL)[0],
                smallest_difference=statistics.smallest_difference(difference[1:]),
                test="paired bootstrap of groups",
                p=statistics.bootstrap_p(difference[1:]),
            )
        rows.append(row)
    return rows


def _generators(seeds: Seeds) -> list[int]:
    return sorted({generator for _, generator in seeds if generator is not None})


def _partner(runs: Mapping[tuple[int | None, int | None], _T], key: tuple[int | None, int | None]) -> _T | None:
    """The baseline's run of the same seed: of the same generator, or shown no generated image."""
    return runs.get(key, runs.get((key[0], None)))


def _generator_rows(arm: str, seeds: Seeds, baseline: Seeds | None) -> Iterator[Row]:
    """The mean over an arm's seeds for each generator, where there are several, and its difference from the baseline's.

    Their spread is what another training of the generator would give.
    """
    generators = _generators(seeds)
    of_baseline = _mean(list(baseline.values())) if baseline else None
    for generator in generators if len(generators) > 1 else ():
        mean = _mean([measured for (_, of), measured in seeds.items() if of == generator])
        for metric, values in mean.items():
            difference = float(values[0] - of_baseline[metric][0]) if of_baseline else None
            yield Row(arm, f"{GENERATOR} {generator}", *metric, value=float(values[0]), difference=difference)


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


def _adjust(rows: Sequence[Row], primary: str, arms: Sequence[str]) -> tuple[Row, ...]:
    """Holm over the arms of the family: one p an arm, that of its mean over seeds on the primary metric."""
    family = {
        i: r.p
        for i, r in enumerate(rows)
        if (r.seeds, r.metric, r.class_name) == (MEAN, primary, "") and r.p is not None and r.arm in arms
    }
    adjusted = list(rows)
    for index, p in zip(family, statistics.holm(list(family.values())), strict=True):
        adjusted[index] = replace(rows[index], p_holm=float(p))
    return tuple(adjusted)


def _seed_name(run: Run, several_generators: bool) -> str:
    seed = "seed -" if run.seed is None else f"seed {run.seed}"
    return f"{seed}, {GENERATOR} {run.generator}" if several_generators else seed

"""Every arm measured, and compared with the baseline on the same images."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np

from dermsynth.errors import InputError
from dermsynth.evaluation import statistics
from dermsynth.evaluation.choices import check_family, check_margin, choose_baseline
from dermsynth.evaluation.comparison import ENSEMBLE, GENERATOR, MEAN, Comparison, Result
from dermsynth.evaluation.measure import measure
from dermsynth.evaluation.metrics import ACCURACY, AUROC, METRICS, Floats, Quantity
from dermsynth.evaluation.other_causes import notes, without_control
from dermsynth.evaluation.runs import Run
from dermsynth.evaluation.statistics import MARGIN_LEVEL

_T = TypeVar("_T")
Measured = dict[Quantity, Floats]
#: What each run of an arm measures, by its seed and its generator's.
Seeds = dict[tuple[int | None, int | None], Measured]


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
    if len(arms) < 2:
        raise InputError(
            f"compare needs runs of at least two arms; found {', '.join(arms) or 'none'}. "
            "Give the runs of another arm too, in folders named ARM-seedN."
        )
    with _said_of("--baseline"):
        baseline, reason = choose_baseline(list(arms), baseline)
    with _said_of("--margin"):
        check_margin(margin)
    with _said_of("--family"):
        check_family(family, list(arms), baseline)
    others = [arm for arm in arms if arm != baseline]
    arms = {baseline: arms[baseline], **arms}
    first = arms[baseline][0]
    labels, groups, classes = first.label_index, first.group_index, first.classes
    n_groups = int(groups.max()) + 1
    if n_groups < 2:
        raise InputError(f"{first.path}: all images are of one patient or lesion; an interval needs two or more.")
    # Row 0 is the test set as it is, the others are its resamples.
    weights = np.vstack([np.ones(n_groups), statistics.resampling_weights(n_groups)])
    of_seeds: dict[str, Seeds] = {
        arm: {run.key: measure(run.probabilities, labels, groups, weights, classes) for run in runs}
        for arm, runs in arms.items()
    }
    # What is not defined depends on the images alone, so any one run tells.
    of_first = of_seeds[baseline][first.key]
    if np.isnan(of_first[Quantity(primary)][0]):
        empty = [name for index, name in enumerate(classes) if not (labels == index).any()]
        raise InputError(
            f"{first.path}: {primary} is not defined, as no image is of class {', '.join(empty)}. "
            "Test on images of every class, or choose --primary accuracy."
        )
    results: list[Result] = []
    for arm, runs in arms.items():
        against = () if arm == baseline else arms[baseline]
        partners = {run.key: run.probabilities for run in against}
        results += _mean_results(arm, of_seeds[arm], of_seeds[baseline] if against else None)
        results += _generator_results(arm, of_seeds[arm], of_seeds[baseline] if against else None)
        results += _exact_results(arm, ENSEMBLE, first, _ensemble(runs), _ensemble(against) if against else None)
        several = len(_generators(of_seeds[arm])) > 1
        for run in runs:
            results += _exact_results(
                arm, _seed_name(run, several), first, run.probabilities, _partner(partners, run.key)
            )
    return Comparison(
        results=_adjust(results, primary, others if family is None else family),
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


@contextmanager
def _said_of(flag: str) -> Iterator[None]:
    """Name the flag in what is wrong with its value."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{flag}: {error}") from error


def _mean(measured: Sequence[Measured]) -> Measured:
    return {quantity: np.mean([of_seed[quantity] for of_seed in measured], axis=0) for quantity in measured[0]}


def _ensemble(runs: Sequence[Run]) -> Floats:
    return np.mean([run.probabilities for run in runs], axis=0)


def _sd(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _mean_results(arm: str, seeds: Seeds, baseline: Seeds | None) -> Iterator[Result]:
    """The mean over an arm's seeds with its interval, and its paired difference from the baseline's mean."""
    mean, of_baseline = _mean(list(seeds.values())), _mean(list(baseline.values())) if baseline else None
    for quantity, values in mean.items():
        low, high = statistics.percentile_interval(values[1:])
        sd = _sd([seed[quantity][0] for seed in seeds.values()])
        result = Result(arm, MEAN, *quantity, value=float(values[0]), sd=sd, low=low, high=high)
        if baseline and of_baseline:
            difference = values - of_baseline[quantity]
            low, high = statistics.percentile_interval(difference[1:])
            low_90, high_90 = statistics.percentile_interval(difference[1:], MARGIN_LEVEL)
            falls = METRICS[quantity.name].higher_is_better  # where harm is
            partners = {key: _partner(baseline, key) for key in seeds}
            pairs = [seeds[key][quantity][0] - of[quantity][0] for key, of in partners.items() if of is not None]
            result = replace(
                result,
                difference=float(difference[0]),
                difference_sd=_sd(pairs),
                difference_low=low,
                difference_high=high,
                difference_low_90=low_90 if falls else None,
                difference_high_90=None if falls else high_90,
                smallest_difference=statistics.smallest_difference(difference[1:]),
                test="paired bootstrap of groups",
                p=statistics.bootstrap_p(difference[1:]),
            )
        yield result


def _generators(seeds: Seeds) -> list[int]:
    return sorted({generator for _, generator in seeds if generator is not None})


def _partner(runs: Mapping[tuple[int | None, int | None], _T], key: tuple[int | None, int | None]) -> _T | None:
    """The baseline's run of the same seed: of the same generator, or shown no generated image."""
    return runs.get(key, runs.get((key[0], None)))


def _generator_results(arm: str, seeds: Seeds, baseline: Seeds | None) -> Iterator[Result]:
    """The mean over an arm's seeds for each generator, where there are several, and its difference from the baseline's.

    Their spread is what another training of the generator would give.
    """
    generators = _generators(seeds)
    of_baseline = _mean(list(baseline.values())) if baseline else None
    for generator in generators if len(generators) > 1 else ():
        mean = _mean([measured for (_, of), measured in seeds.items() if of == generator])
        for quantity, values in mean.items():
            difference = float(values[0] - of_baseline[quantity][0]) if of_baseline else None
            yield Result(arm, f"{GENERATOR} {generator}", *quantity, value=float(values[0]), difference=difference)


def _exact_results(
    arm: str, seeds: str, images: Run, probabilities: Floats, baseline: Floats | None
) -> Iterator[Result]:
    """Plain metrics of one set of probabilities; exact McNemar and DeLong against another of these images."""
    values = _plain(images, probabilities)
    of_baseline = {} if baseline is None else _plain(images, baseline)
    for quantity, value in values.items():
        result = Result(arm, seeds, *quantity, value=value)
        if baseline is not None:
            result = replace(result, difference=value - of_baseline[quantity])
            result = _test(result, quantity, images, probabilities, baseline)
        yield result


def _plain(images: Run, probabilities: Floats) -> dict[Quantity, float]:
    labels = images.label_index
    values = measure(probabilities, labels, np.zeros_like(labels), np.ones((1, 1)), images.classes)
    return {quantity: float(value[0]) for quantity, value in values.items()}


def _test(result: Result, quantity: Quantity, images: Run, probabilities: Floats, baseline: Floats) -> Result:
    labels, classes = images.label_index, images.classes
    if quantity.name == ACCURACY.name:
        mcnemar = statistics.mcnemar(baseline.argmax(axis=1) == labels, probabilities.argmax(axis=1) == labels)
        return replace(
            result,
            test="exact McNemar",
            p=mcnemar.p,
            only_baseline_correct=mcnemar.only_first,
            only_arm_correct=mcnemar.only_second,
        )
    # The mean of several areas has no DeLong test; two classes have one area.
    if quantity.name == AUROC.name and (quantity.class_name or len(classes) == 2):
        index = classes.index(quantity.class_name) if quantity.class_name else 1
        p = statistics.delong(baseline[:, index], probabilities[:, index], labels == index)
        return replace(result, test="DeLong", p=p)
    return result


def _adjust(results: Sequence[Result], primary: str, arms: Sequence[str]) -> tuple[Result, ...]:
    """Holm over the arms of the family: one p an arm, that of its mean over seeds on the primary metric."""
    family = {
        i: r.p
        for i, r in enumerate(results)
        if (r.seeds, r.metric, r.class_name) == (MEAN, primary, "") and r.p is not None and r.arm in arms
    }
    adjusted = list(results)
    for index, p in zip(family, statistics.holm(list(family.values())), strict=True):
        adjusted[index] = replace(results[index], p_holm=float(p))
    return tuple(adjusted)


def _seed_name(run: Run, several_generators: bool) -> str:
    seed = "seed -" if run.seed is None else f"seed {run.seed}"
    return f"{seed}, {GENERATOR} {run.generator}" if several_generators else seed

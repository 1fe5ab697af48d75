"""What a comparison shows, does not show and could show: sentences, each with how sure it is."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from dermsynth.evaluation.comparison import ENSEMBLE, Comparison, Result
from dermsynth.evaluation.metrics import ACCURACY, METRICS, Quantity
from dermsynth.evaluation.statistics import LEVEL, POWER
from dermsynth.report.number_format import count, number, p_value, points

FOREST_PLOT = "comparison.png"
_ROUNDING = 1e-9  # a mean over seeds that answer alike may be off by less


class Certainty(Enum):
    """How sure a sentence is."""

    SHOWN = "shown"  # a claim about the arms that nothing here speaks against
    NOT_ESTABLISHED = "not established"  # so it was in this test set, but something other than the arm may explain it
    NOT_SHOWN = "not shown"  # the test set leaves it open
    ESTIMATED = "estimated"  # a number with an assumption behind it
    KNOWN = "known"  # counted, or how the runs were made


@dataclass(frozen=True)
class Finding:
    """One thing to tell a reader.

    Args:
        sentence: in plain words; or a few sentences that belong together.
        certainty: how sure it is.
        figure: the file of the plot that shows it, if one does.
    """

    sentence: str
    certainty: Certainty
    figure: str | None = None


@dataclass(frozen=True)
class Section:
    """Findings under one heading.

    Args:
        heading: what they answer.
        paragraphs: the findings, those about one thing together.
    """

    heading: str
    paragraphs: tuple[tuple[Finding, ...], ...]


def sections(c: Comparison) -> tuple[Section, ...]:
    """All findings, in the order to read them."""
    shown = [tuple(of_arm(c, arm)) for arm in c.others]
    if below := tuple(below_commonest(c)):
        shown.append(below)
    return (
        Section("What this shows", tuple(shown)),
        Section("What it does not show", ((limits(c),),)),
        Section("What it could show", ((power(c),),)),
    )


def of_arm(c: Comparison, arm: str) -> Iterator[Finding]:
    """An arm against the baseline; a difference is claimed only where nothing speaks against it."""
    yield _difference(c, arm)
    yield from _exact_test(c, arm)
    yield from _harm(c, arm)
    if arm in c.without_control:
        yield Finding(
            "No arm here repeats real images for as many steps (OversampledReal), so this cannot tell generated images "
            "from more repetitions.",
            Certainty.KNOWN,
        )


def below_commonest(c: Comparison) -> Iterator[Finding]:
    """Arms that answering the commonest class would beat."""
    name, share = c.commonest
    below = [arm for arm in c.arms if c.result(arm, Quantity(ACCURACY.name)).value < share - _ROUNDING]
    if not below:
        return
    values = ", ".join(f"{arm} {c.result(arm, Quantity(ACCURACY.name)).value:.2%}" for arm in below)
    answering = f"answering {name} for every image, which has accuracy {share:.2%}"
    sentence = f"Less accurate in this test set than {answering}: {values}."
    if len(below) == len(c.arms):
        sentence = f"No arm is as accurate in this test set as {answering}: {values}."
    yield Finding(sentence, Certainty.KNOWN, FOREST_PLOT)


def limits(c: Comparison) -> Finding:
    """What the intervals do not cover."""
    sentence = (
        f"The intervals cover the choice of test {c.unit} for these trained models. They do not cover the "
        "choice of training images, nor other clinics, cameras and skin tones than the test set's."
    )
    if min(c.arms.values()) == 1:
        sentence += " An arm here has one seed, so a difference may be the seed's and not the arm's."
    else:
        sentence += " How much the training seed matters is the ±."
    if 1 in c.generators.values():
        sentence += " The generated images are of one generator: what another training of it would give is not in them."
    return Finding(sentence, Certainty.KNOWN)


def power(c: Comparison) -> Finding:
    """The smallest difference that this test set would show."""
    each = ", ".join(_smallest(c, c.result(arm, Quantity(c.primary))) for arm in c.others)
    sentence = (
        f"Smallest true difference in {METRICS[c.primary].title} that this test set shows with {POWER:.0%} "
        f"power, two-sided at {1 - LEVEL:.0%}, before Holm's adjustment: {each}. "
        "It is 2.80 standard errors of the paired difference (Bloom 1995), of these trained models: what other seeds "
        "would give is not in it."
    )
    if c.few_groups:
        sentence += f" With {c.n_groups} {c.unit} that error tends to be too small, and so is this."
    return Finding(sentence, Certainty.ESTIMATED)


def _smallest(c: Comparison, result: Result) -> str:
    if c.not_established(result):
        return f"{result.arm} not known (see above)"
    return f"{result.arm} {points(result.smallest_difference, result.metric)}"


def _difference(c: Comparison, arm: str) -> Finding:
    result, title = c.result(arm, Quantity(c.primary)), METRICS[c.primary].title
    difference = result.difference or 0.0
    low, high = result.difference_low or 0.0, result.difference_high or 0.0
    ends = f"{LEVEL:.0%} interval {number(low, c.primary, sign=True)} to {number(high, c.primary, sign=True)}"
    change = f"{points(difference, c.primary, sign=True)}, {ends}"
    if not (low > 0 or high < 0):
        sentence = f"{arm}: no difference in {title} from {c.baseline} shown ({change}, which contains zero)."
        return Finding(sentence, Certainty.NOT_SHOWN, FOREST_PLOT)
    direction = "higher" if difference > 0 else "lower"
    if not METRICS[c.primary].higher_is_better:
        direction += ", which is worse," if difference > 0 else ", which is better,"
    if doubts := list(_doubts(c, arm)):
        size = points(abs(difference), c.primary)
        sentence = (
            f"{arm}: {title} was {size} {direction} than {c.baseline}'s in this test set ({ends}). "
            f"That the arms differ is not established: {'; '.join(doubts)}."
        )
        return Finding(sentence, Certainty.NOT_ESTABLISHED, FOREST_PLOT)
    sentence = f"{arm}: {title} is {direction} than {c.baseline}'s in this test set ({change})."
    return Finding(sentence, Certainty.SHOWN, FOREST_PLOT)


def _doubts(c: Comparison, arm: str) -> Iterator[str]:
    """Why an interval that leaves out zero does not establish a difference."""
    result = c.result(arm, Quantity(c.primary))
    if arm not in c.planned:
        yield f"it is not among the comparisons that were planned ({', '.join(c.planned) or 'none'})"
    elif result.p_holm is None or not result.p_holm < 1 - LEVEL:
        yield f"after Holm's adjustment for {count(len(c.planned), 'comparison')} {p_value(result.p_holm)}"
    yield from c.doubts(arm, Quantity(c.primary))


def _exact_test(c: Comparison, arm: str) -> Iterator[Finding]:
    """Where McNemar's test and the bootstrap interval of the accuracy do not say the same."""
    if c.primary != ACCURACY.name:
        return
    result, exact = c.result(arm, Quantity(c.primary)), c.result(arm, Quantity(c.primary), ENSEMBLE)
    low, high = result.difference_low or 0.0, result.difference_high or 0.0
    gained, lost = exact.only_arm_correct or 0, exact.only_baseline_correct or 0
    by_interval = 1 if low > 0 else -1 if high < 0 else 0
    by_counts = (gained > lost) - (gained < lost) if exact.p is not None and exact.p < 1 - LEVEL else 0
    if by_interval != by_counts:
        yield Finding(
            f"The exact McNemar test of the ensembles disagrees with this interval: {p_value(exact.p)}, "
            f"{gained} images right only in {arm} and {lost} only in {c.baseline}.",
            Certainty.KNOWN,
        )


def _harm(c: Comparison, arm: str) -> Iterator[Finding]:
    """The margin, if there is one."""
    if c.margin is None:
        return
    result, falls = c.result(arm, Quantity(c.primary)), METRICS[c.primary].higher_is_better
    worst = result.difference_low_90 if falls else result.difference_high_90
    worst = math.nan if worst is None else worst
    end = f"{'lower' if falls else 'upper'} end of the 90% interval {number(worst, c.primary, sign=True)}"
    margin = points(c.margin, c.primary)
    if not (-worst if falls else worst) < c.margin:
        yield Finding(f"Harm by more than the margin of {margin} is not excluded ({end}).", Certainty.NOT_SHOWN)
        return
    weak = c.weaknesses(arm)
    unsure = f"; not established: {'; '.join(weak)}" if weak else ""
    yield Finding(
        f"No harm by the margin of {margin} ({end}, not adjusted for the number of arms{unsure}).",
        Certainty.NOT_ESTABLISHED if weak else Certainty.SHOWN,
    )

"""A comparison of arms as text, CSV and a forest plot."""

import csv
import io
import math
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dermsynth.data.manifest import write_atomically
from dermsynth.errors import InputError
from dermsynth.evaluation.statistics import LEVEL, POWER, SEED, Metric
from dermsynth.lesions import DIAGNOSES

MEAN, ENSEMBLE = "mean", "ensemble"
NAMES = {"accuracy": "accuracy", "auroc": "AUROC", "balanced_accuracy": "balanced accuracy"}
FEW_GROUPS = 30  # below it cluster methods reject too often (Cameron, Gelbach & Miller 2008)
LINE = 100
BASELINE_COLOUR, ARM_COLOUR = "#555555", "#0072B2"  # Okabe & Ito: distinct to every kind of colour vision


@dataclass(frozen=True)
class Row:
    """One line of comparison.csv: a metric of an arm, and its difference from the baseline; fractions.

    Args:
        arm: name of the arm.
        seeds: `mean` over the seeds, the `ensemble` of their mean probabilities, or `seed N`.
        metric: name of the metric.
        class_name: the class it is measured for, against the rest; blank for all.
        value: on the test set as it is.
        sd: standard deviation over the seeds.
        low: lower end of the interval of the value.
        high: upper end.
        difference: the value minus the baseline's.
        difference_sd: standard deviation of the difference over the seeds that both arms have.
        difference_low: lower end of the interval of the difference.
        difference_high: upper end.
        smallest_difference: what this test set would show with 80 % power.
        test: how p was found.
        p: two-sided.
        p_holm: adjusted for the number of arms; for the primary metric alone.
        only_baseline_correct: images that the baseline alone got right.
        only_arm_correct: images that the arm alone got right.
    """

    arm: str
    seeds: str
    metric: str
    class_name: str
    value: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    difference_sd: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    smallest_difference: float | None = None
    test: str = ""
    p: float | None = None
    p_holm: float | None = None
    only_baseline_correct: int | None = None
    only_arm_correct: int | None = None


@dataclass(frozen=True)
class Comparison:
    """All that a report says.

    Args:
        rows: the results.
        arms: number of seeds of each arm, in the order to show them.
        baseline: the arm that the others are compared with.
        baseline_reason: why this one.
        primary: name of the metric that the conclusion is about.
        class_counts: test images of each class, in the order of the label index.
        n_images: test images.
        n_groups: patients, lesions or clusters of near-duplicates among them.
        splits: the splits that the images come from.
        resamples: bootstrap resamples.
        undefined: largest number of resamples in which a metric was not defined.
    """

    rows: tuple[Row, ...]
    arms: Mapping[str, int]
    baseline: str
    baseline_reason: str
    primary: str
    class_counts: Mapping[str, int]
    n_images: int
    n_groups: int
    splits: tuple[str, ...]
    resamples: int
    undefined: int

    @property
    def others(self) -> list[str]:
        """The arms that are not the baseline."""
        return [arm for arm in self.arms if arm != self.baseline]

    @property
    def headline(self) -> tuple[Metric, ...]:
        """What to show: the overall metrics, then class 1 of two or the malignant diagnoses of more."""
        overall = tuple(Metric(name) for name in NAMES)
        classes = list(self.class_counts)
        watched = [name for name in classes if name in DIAGNOSES and DIAGNOSES[name].malignant]
        if len(classes) == 2:
            watched = classes[1:]
        if len(watched) == 1:
            return (*overall, Metric("sensitivity", watched[0]), Metric("specificity", watched[0]))
        return overall + tuple(Metric("sensitivity", name) for name in watched)

    def row(self, arm: str, metric: Metric, seeds: str = MEAN) -> Row:
        """The one result of an arm for a metric."""
        return next(r for r in self.rows if (r.arm, r.seeds, r.metric, r.class_name) == (arm, seeds, *metric))

    def seed_rows(self, arm: str, metric: Metric) -> list[Row]:
        """The results of an arm's seeds, one each."""
        wanted = (arm, *metric)
        return [r for r in self.rows if (r.arm, r.metric, r.class_name) == wanted and r.seeds not in (MEAN, ENSEMBLE)]


def write(comparison: Comparison, out: Path) -> str:
    """Write comparison.txt, comparison.csv and comparison.png into a folder; return the text.

    Raises:
        InputError: `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: this is a file; give a folder.")
    out.mkdir(parents=True, exist_ok=True)
    report = text(comparison)
    write_atomically(out / "comparison.csv", table(comparison))
    picture = out / "comparison.png"
    temporary = picture.with_name(f".{picture.name}.{os.getpid()}")
    plot(comparison).savefig(temporary, format="png", dpi=160)
    temporary.replace(picture)
    write_atomically(out / "comparison.txt", report)
    return report


def table(comparison: Comparison) -> str:
    """The rows as CSV, six significant digits, blank where there is nothing to say."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        cells = asdict(row)
        for name, value in cells.items():
            if isinstance(value, float):
                cells[name] = "" if math.isnan(value) else f"{value:.6g}"
        writer.writerow(cells)
    return buffer.getvalue()


def text(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    c = comparison
    blocks = [_about(c), _values(c), _differences(c), _decisions(c), _conclusion(c)]
    return "\n\n".join(blocks) + "\n"


def _about(c: Comparison) -> str:
    counts = ", ".join(f"{name} {n} ({n / c.n_images:.2%})" for name, n in c.class_counts.items())
    most = max(c.class_counts, key=lambda name: c.class_counts[name])
    empty = [name for name, n in c.class_counts.items() if n == 0]
    lines = [
        f"Comparison of {len(c.arms)} arms on {c.n_images:,} images of {c.n_groups:,} groups "
        f"(patients or lesions), split {' and '.join(c.splits)}.",
        f"Images per class: {counts}.",
        f"Answering {most} for every image has accuracy {c.class_counts[most] / c.n_images:.2%}.",
        f"Baseline: {c.baseline} ({c.baseline_reason}). Primary metric: {NAMES[c.primary]}.",
    ]
    if empty:
        lines.append(f"No image of {', '.join(empty)}: what needs one is not defined (–).")
    return "\n".join(_wrap(line) for line in lines)


def _values(c: Comparison) -> str:
    width = _name_width(c)
    lines = _table_head("", c.headline, width)
    for arm, seeds in c.arms.items():
        rows = [c.row(arm, metric) for metric in c.headline]
        means = [_spread(r.value, r.sd, r.metric) for r in rows]
        intervals = [_interval(r.low, r.high, r.metric) for r in rows]
        lines += [_cells(arm, means, width), _cells(f"  {_count(seeds, 'seed')}", intervals, width)]
    notes = [
        f"Mean ± standard deviation over seeds; below it the {LEVEL:.0%} interval of the mean, by drawing",
        f"whole groups with replacement ({c.resamples:,} resamples, seed {SEED}).",
    ]
    if c.undefined:
        notes.append(
            f"Up to {c.undefined:,} resamples held no image of some class; "
            "what is not defined on them is taken over the others."
        )
    if c.n_groups < FEW_GROUPS:
        notes.append(f"With {c.n_groups} groups the intervals are rough and tend to be too narrow.")
    return "\n".join([*lines, _wrap(" ".join(notes))])


def _differences(c: Comparison) -> str:
    width = _name_width(c)
    lines = _table_head(f"minus {c.baseline}", c.headline, width)
    for arm in c.others:
        rows = [c.row(arm, metric) for metric in c.headline]
        intervals = [_interval(r.difference_low, r.difference_high, r.metric, sign=True) for r in rows]
        lines += [
            _cells(arm, [_spread(r.difference, r.difference_sd, r.metric, sign=True) for r in rows], width),
            _cells("", intervals, width),
            _cells("", [_p(r.p) for r in rows], width),
        ]
    adjusted = "; ".join(f"{arm} {_p(c.row(arm, Metric(c.primary)).p_holm)}" for arm in c.others)
    note = (
        "Paired: both arms are measured on the same resamples, and p (two-sided) is from them; ± is over "
        f"pairs of seeds. Holm's adjustment for {_count(len(c.others), 'comparison')} on {NAMES[c.primary]}: "
        f"{adjusted}."
    )
    return "\n".join([*lines, _wrap(note)])


def _decisions(c: Comparison) -> str:
    lines = ["Tests on the same images"]
    base = c.row(c.baseline, Metric("accuracy"), ENSEMBLE)
    for arm in c.others:
        row = c.row(arm, Metric("accuracy"), ENSEMBLE)
        # An arm may have seeds that the baseline lacks: those have no partner and no test.
        pairs = [r for r in c.seed_rows(arm, Metric("accuracy")) if r.p is not None]
        lines += [
            f"  {arm}: exact McNemar {_p(row.p)}",
            f"    {row.only_arm_correct} images right only in {arm}, {row.only_baseline_correct} only in "
            f"{c.baseline}; accuracy {row.value:.2%} against {base.value:.2%}.",
        ]
        if c.arms[arm] > 1 and pairs:
            lines.append(_wrap(f"By seed: {', '.join(f'{r.seeds} {_p(r.p)}' for r in pairs)}.", "    "))
        lines += [f"    {sentence}" for sentence in _areas(c, arm)]
    notes = "An arm's answer is the class of highest mean probability over its seeds."
    if len(set(c.arms.values())) > 1:
        notes += " The arms have different numbers of seeds, and averaging more seeds helps by itself."
    if c.n_groups < c.n_images:
        notes += (
            " These tests take images as independent; groups hold several here, so trust the intervals above "
            "where they disagree."
        )
    return "\n".join([*lines, _wrap(notes)])


def _areas(c: Comparison, arm: str) -> Iterator[str]:
    for row in c.rows:
        if (row.arm, row.seeds, row.metric) != (arm, ENSEMBLE, "auroc") or row.p is None:
            continue
        base = c.row(c.baseline, Metric("auroc", row.class_name), ENSEMBLE)
        against = f" of {row.class_name}" if row.class_name else ""
        values = f"{_value(row.value, row.metric)} against {_value(base.value, row.metric)}"
        yield f"AUROC{against} {values}, DeLong {_p(row.p)}."


def _conclusion(c: Comparison) -> str:
    metric = Metric(c.primary)
    limits = (
        "The intervals cover the choice of test patients for these trained models. They do not cover the "
        "choice of training images, nor other clinics, cameras and skin tones than the test set's."
    )
    if min(c.arms.values()) == 1:
        limits += " An arm here has one seed, so a difference may be the seed's and not the arm's."
    else:
        limits += " How much the training seed matters is the ±."
    power = ", ".join(f"{arm} {_points(c.row(arm, metric).smallest_difference, c.primary)}" for arm in c.others)
    return "\n".join(
        [
            "What this shows",
            *(_wrap(verdict(c, arm), "  ") for arm in c.others),
            "What it does not show",
            _wrap(limits, "  "),
            "What it could show",
            _wrap(
                f"Smallest true difference in {NAMES[c.primary]} that this test set shows with {POWER:.0%} "
                f"power, two-sided at {1 - LEVEL:.0%}, before Holm's adjustment: {power}. "
                "It is 2.80 standard errors of the paired difference (Bloom 1995).",
                "  ",
            ),
        ]
    )


def verdict(c: Comparison, arm: str) -> str:
    """One or two plain sentences on an arm against the baseline."""
    row, name = c.row(arm, Metric(c.primary)), NAMES[c.primary]
    difference, low, high = row.difference or 0.0, row.difference_low or 0.0, row.difference_high or 0.0
    change = (
        f"{_points(difference, c.primary, sign=True)}, {LEVEL:.0%} interval "
        f"{_value(low, c.primary, sign=True)} to {_value(high, c.primary, sign=True)}"
    )
    nothing = f"{arm}: no difference in {name} from {c.baseline} shown"
    if low <= 0 <= high:
        return f"{nothing} ({change}, which contains zero)."
    if row.p_holm is not None and row.p_holm >= 1 - LEVEL:
        return (
            f"{nothing} ({change}; the interval leaves out zero, but after Holm's adjustment for "
            f"{_count(len(c.others), 'comparison')} {_p(row.p_holm)})."
        )
    direction = "higher" if difference > 0 else "lower"
    verdict = f"{arm}: {name} is {direction} than {c.baseline}'s ({change})."
    pairs = [r.difference for r in c.seed_rows(arm, Metric(c.primary)) if r.difference is not None]
    if len(pairs) < 2:
        return verdict
    agree = sum(pair * difference > 0 for pair in pairs)
    if agree == len(pairs):
        return f"{verdict} All {len(pairs)} pairs of seeds agree."
    return f"{verdict} Only {agree} of {len(pairs)} pairs of seeds agree: it may be the seeds', not the arm's."


def plot(comparison: Comparison) -> Figure:
    """Forest plot: the arms above, their differences from the baseline below, one column a metric."""
    c = comparison
    columns = c.headline
    # Rows of the two panels in units of one arm; the rest is titles and axis labels.
    heights = [len(c.arms) + 0.4, len(c.others) + 0.4]
    figure = Figure(
        figsize=(1.4 + 2.5 * len(columns), 2.2 + 0.5 * sum(heights)),
    )
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    axes = figure.subplots(2, len(columns), sharey="row", squeeze=False, height_ratios=heights)
    for (above, below), metric in zip(axes.T, columns, strict=True):
        above.set_title("\n".join(_title(metric)), fontsize=10.5, fontweight="bold", color="#222222", pad=10)
        above.axvline(
            c.row(c.baseline, metric).value * _scale(metric),
            color=BASELINE_COLOUR,
            linewidth=0.9,
            linestyle=(0, (2, 3)),
        )
        below.axvline(0, color="#333333", linewidth=1)
        below.set_xlabel("points" if _percent(metric.name) else "AUROC", fontsize=9, color="#555555")
        for place, arm in enumerate(c.arms):
            row = c.row(arm, metric)
            seeds = [r.value for r in c.seed_rows(arm, metric)]
            colour = BASELINE_COLOUR if arm == c.baseline else ARM_COLOUR
            _mark(above, place, metric, (row.value, row.low, row.high), seeds, colour)
        for place, arm in enumerate(c.others):
            row = c.row(arm, metric)
            pairs = [r.difference for r in c.seed_rows(arm, metric) if r.difference is not None]
            ends = (row.difference, row.difference_low, row.difference_high)
            _mark(below, place, metric, ends, pairs, ARM_COLOUR, difference=True)
    _style(axes[0], list(c.arms), "arm")
    _style(axes[1], c.others, f"minus {c.baseline}")
    figure.supxlabel(
        f"{c.n_images:,} images of {c.n_groups:,} groups. Diamond: mean over seeds; line: {LEVEL:.0%} "
        "interval; circles: single seeds.\nDifferences are paired; a filled diamond's interval leaves "
        "out zero (before Holm's adjustment).",
        fontsize=9,
        color="#555555",
    )
    return figure


def _mark(
    axes: Axes,
    place: int,
    metric: Metric,
    ends: tuple[float | None, float | None, float | None],
    seeds: Sequence[float],
    colour: str,
    difference: bool = False,
) -> None:
    """One arm: its interval, its mean with the number above, and its seeds below."""
    value, low, high = (math.nan if end is None else end * _scale(metric) for end in ends)
    if math.isnan(value):
        return
    axes.plot([low, high], [place] * 2, color=colour, linewidth=2.2, solid_capstyle="round")
    if len(seeds) > 1:
        circles = [seed * _scale(metric) for seed in seeds]
        axes.plot(circles, [place + 0.24] * len(seeds), "o", markersize=4, color=colour, fillstyle="none", alpha=0.7)
    face = "white" if difference and low <= 0 <= high else colour
    axes.plot(value, place, "D", markersize=7, color=colour, markerfacecolor=face, markeredgewidth=1.6)
    axes.annotate(
        _value(ends[0], metric.name, sign=difference),
        (value, place),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color="#222222",
        # Keeps the number legible where it crosses the line of zero or of the baseline.
        bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
    )


def _style(axes: Sequence[Axes], names: Sequence[str], label: str) -> None:
    axes[0].set_ylabel(label, fontsize=9, color="#555555")
    for ax in axes:
        ax.set_yticks(range(len(names)), names, fontsize=10)
        ax.set_ylim(len(names) - 0.5, -0.7)
        ax.margins(x=0.15)
        ax.locator_params(axis="x", nbins=5)
        ax.tick_params(axis="y", length=0)
        ax.tick_params(axis="x", labelsize=8.5, color="#bbbbbb", labelcolor="#555555")
        ax.grid(axis="x", color="#ececec", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "left", "right"]].set_visible(False)
        ax.spines["bottom"].set_color("#bbbbbb")


def _percent(metric: str) -> bool:
    return metric != "auroc"


def _scale(metric: Metric) -> int:
    return 100 if _percent(metric.name) else 1


def _title(metric: Metric) -> tuple[str, str]:
    """Two lines, so that long names leave the columns narrow."""
    if metric.class_name:
        return metric.name, f"{metric.class_name} %"
    if metric.name == "balanced_accuracy":
        return "balanced", "accuracy %"
    return "", f"{NAMES[metric.name]} %" if _percent(metric.name) else NAMES[metric.name]


def _value(value: float | None, metric: str, sign: bool = False) -> str:
    if value is None or math.isnan(value):
        return "–"
    plus = "+" if sign else ""
    return f"{100 * value:{plus}.2f}" if _percent(metric) else f"{value:{plus}.4f}"


def _spread(value: float | None, sd: float | None, metric: str, sign: bool = False) -> str:
    return _value(value, metric, sign) + ("" if sd is None else f" ± {_value(sd, metric)}")


def _points(value: float | None, metric: str, sign: bool = False) -> str:
    return _value(value, metric, sign) + (" points" if _percent(metric) else "")


def _interval(low: float | None, high: float | None, metric: str, sign: bool = False) -> str:
    return f"[{_value(low, metric, sign)}, {_value(high, metric, sign)}]"


def _p(p: float | None) -> str:
    if p is None or math.isnan(p):
        return "p –"
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _name_width(c: Comparison) -> int:
    return max(len(f"minus {c.baseline}"), *(len(arm) for arm in c.arms), len("  10 seeds"))


def _table_head(corner: str, columns: Sequence[Metric], width: int) -> list[str]:
    titles = [_title(metric) for metric in columns]
    heads = [
        _cells("", [upper for upper, _ in titles], width),
        _cells(corner, [lower for _, lower in titles], width),
    ]
    return [*(head.rstrip() for head in heads), "-" * len(heads[0])]


def _cells(name: str, cells: Sequence[str], width: int) -> str:
    return f"{name:<{width}}" + "".join(f"{cell:>20}" for cell in cells)


def _wrap(paragraph: str, indent: str = "") -> str:
    # Hard spaces while wrapping keep a p and its number on one line.
    whole = re.sub(r"p ([=<]) ", "p\xa0\\1\xa0", paragraph)
    filled = textwrap.fill(whole, LINE, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return filled.replace("\xa0", " ")

"""A comparison as a forest plot."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dermsynth.evaluation.comparison import Comparison
from dermsynth.evaluation.metrics import ACCURACY, METRICS, Quantity
from dermsynth.evaluation.statistics import LEVEL
from dermsynth.report.number_format import heading, is_percent, lower_is_better, number

BASELINE_COLOUR, ARM_COLOUR = "#555555", "#0072B2"  # Okabe & Ito: distinct to every kind of colour vision
COMMONEST_COLOUR = "#D55E00"


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
    for (above, below), quantity in zip(axes.T, columns, strict=True):
        above.set_title("\n".join(heading(quantity)), fontsize=10.5, fontweight="bold", color="#222222", pad=10)
        above.axvline(
            c.result(c.baseline, quantity).value * _scale(quantity),
            color=BASELINE_COLOUR,
            linewidth=0.9,
            linestyle=(0, (2, 3)),
        )
        if quantity.name == ACCURACY.name:
            _, share = c.commonest
            above.axvline(share * _scale(quantity), color=COMMONEST_COLOUR, linewidth=1.1)
        below.axvline(0, color="#333333", linewidth=1)
        unit = "points" if is_percent(quantity.name) else METRICS[quantity.name].title
        below.set_xlabel(unit, fontsize=9, color="#555555")
        for place, arm in enumerate(c.arms):
            row = c.result(arm, quantity)
            seeds = [r.value for r in c.seed_results(arm, quantity)]
            colour = BASELINE_COLOUR if arm == c.baseline else ARM_COLOUR
            _mark(above, place, quantity, (row.value, row.low, row.high), seeds, colour)
        for place, arm in enumerate(c.others):
            row = c.result(arm, quantity)
            pairs = [r.difference for r in c.seed_results(arm, quantity) if r.difference is not None]
            ends = (row.difference, row.difference_low, row.difference_high)
            _mark(below, place, quantity, ends, pairs, ARM_COLOUR, difference=True, hollow=bool(c.not_established(row)))
    _style(axes[0], list(c.arms), "arm")
    _style(axes[1], c.others, f"minus {c.baseline}")
    figure.supxlabel(
        f"{c.sample}. Diamond: mean over seeds; line: {LEVEL:.0%} "
        "interval; circles: single seeds.\nDifferences are paired; a filled diamond's interval leaves "
        "out zero (before Holm's adjustment), and its seeds agree."
        + (f"\n{_commonest(c)}" if any(quantity.name == ACCURACY.name for quantity in columns) else "")
        + (f"\n{lower}" if (lower := lower_is_better(columns)) else ""),
        fontsize=9,
        color="#555555",
    )
    return figure


def _mark(
    axes: Axes,
    place: int,
    quantity: Quantity,
    ends: tuple[float | None, float | None, float | None],
    seeds: Sequence[float],
    colour: str,
    difference: bool = False,
    hollow: bool = False,
) -> None:
    """One arm: its interval, its mean with the number above, and its seeds below."""
    value, low, high = (math.nan if end is None else end * _scale(quantity) for end in ends)
    if math.isnan(value):
        return
    axes.plot([low, high], [place] * 2, color=colour, linewidth=2.2, solid_capstyle="round")
    if len(seeds) > 1:
        circles = [seed * _scale(quantity) for seed in seeds]
        axes.plot(circles, [place + 0.24] * len(seeds), "o", markersize=4, color=colour, fillstyle="none", alpha=0.7)
    face = "white" if hollow or (difference and low <= 0 <= high) else colour
    axes.plot(value, place, "D", markersize=7, color=colour, markerfacecolor=face, markeredgewidth=1.6)
    axes.annotate(
        number(ends[0], quantity.name, sign=difference),
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


def _commonest(c: Comparison) -> str:
    name, _ = c.commonest
    return f"Orange line in accuracy: answering {name}, the commonest class, for every image."


def _scale(quantity: Quantity) -> int:
    return 100 if is_percent(quantity.name) else 1

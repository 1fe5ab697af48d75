"""What membership tests found over a run's checkpoints, as a plot."""

import itertools
from collections.abc import Sequence

from matplotlib.figure import Figure

from dermsynth.audit.answers import Attack, Membership
from dermsynth.evaluation.statistics import LEVEL

# Okabe & Ito: distinct to every kind of colour vision.
_ALL = "#222222"
_CLASSES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def membership_curve(tests: Sequence[Membership]) -> Figure:
    """The area of the test over optimizer steps, of all images with its interval and of each class.

    Args:
        tests: of the checkpoints, in any order.
    """
    tests = sorted(tests, key=lambda test: test.step)
    figure = Figure(figsize=(6.4, 4.0))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    axes = figure.subplots()
    axes.axhline(0.5, color="#555555", linewidth=0.9, linestyle=(0, (2, 3)))
    names = list(dict.fromkeys(name for test in tests for name in test.classes))
    for name, colour in zip(names, itertools.cycle(_CLASSES)):
        known = [(test.step, test.classes[name]) for test in tests if name in test.classes]
        axes.plot(*_defined(known), "o-", color=colour, linewidth=1, markersize=3.5, label=name)
    overall = [(test.step, test.overall) for test in tests]
    axes.plot(*_defined(overall), "D-", color=_ALL, linewidth=2, markersize=5, label="all")
    bounds = [(s, of.auroc.low, of.auroc.high) for s, of in overall if of.auroc.low is not None]
    if bounds:
        steps, lows, highs = zip(*bounds, strict=True)
        axes.vlines(steps, lows, highs, color=_ALL, linewidth=2)
    axes.set_title("Can it be told who was trained on?", fontsize=10.5, fontweight="bold", loc="left")
    axes.set_xlabel("optimizer steps", fontsize=9, color="#555555")
    axes.set_ylabel("area under the ROC curve", fontsize=9, color="#555555")
    axes.tick_params(labelsize=8.5, color="#bbbbbb", labelcolor="#555555")
    axes.grid(axis="y", color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5)
    figure.supxlabel(
        f"Train against held-out images by denoising loss, base less checkpoint. Lines: {LEVEL:.0%} intervals; dotted: "
        "chance.",
        fontsize=8.5,
        color="#555555",
    )
    return figure


def _defined(points: Sequence[tuple[int, Attack]]) -> tuple[list[int], list[float]]:
    known = [(step, of.auroc.value) for step, of in points if of.auroc.value is not None]
    return [step for step, _ in known], [value for _, value in known]

"""How quantities and their numbers are written, in text and in plots alike."""

import math
import textwrap
from collections.abc import Sequence

from dermsynth.evaluation.metrics import METRICS, Quantity, Unit

LINE = 100


def is_percent(metric: str) -> bool:
    """Whether it is written in per cent and its differences in points, and not as a plain fraction."""
    return METRICS[metric].unit is Unit.POINTS


def heading(quantity: Quantity) -> tuple[str, str]:
    """Two lines, so that long names leave the columns narrow."""
    title, percent = METRICS[quantity.name].title, " %" if is_percent(quantity.name) else ""
    if quantity.class_name:
        return title, f"{quantity.class_name}{percent}"
    first, _, last = title.rpartition(" ")
    return first, f"{last}{percent}"


def lower_is_better(quantities: Sequence[Quantity]) -> str:
    """A sentence that names the metrics whose lower values are better; blank if none is."""
    titles = dict.fromkeys(METRICS[q.name].title for q in quantities if not METRICS[q.name].higher_is_better)
    return f"Lower is better: {', '.join(titles)}." if titles else ""


def number(value: float | None, metric: str, sign: bool = False) -> str:
    """`84.06`, `+2.33` or, where nothing is defined, a dash."""
    if value is None or math.isnan(value):
        return "–"
    plus = "+" if sign else ""
    return f"{100 * value:{plus}.2f}" if is_percent(metric) else f"{value:{plus}.4f}"


def points(value: float | None, metric: str, sign: bool = False) -> str:
    """A difference with its unit: `+2.33 points`."""
    return number(value, metric, sign) + (" points" if is_percent(metric) else "")


def spread(value: float | None, sd: float | None, metric: str, sign: bool = False) -> str:
    """`84.06 ± 0.50`."""
    return number(value, metric, sign) + ("" if sd is None else f" ± {number(sd, metric)}")


def interval(low: float | None, high: float | None, metric: str, sign: bool = False) -> str:
    """`[78.00, 87.00]`."""
    return f"[{number(low, metric, sign)}, {number(high, metric, sign)}]"


def p_value(p: float | None) -> str:
    """`p = 0.13`, `p = 0.031`, `p < 0.001`."""
    if p is None or math.isnan(p):
        return "p –"
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def count(n: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def wrap(paragraph: str, indent: str = "") -> str:
    """A paragraph in lines of at most `LINE` characters."""
    return textwrap.fill(paragraph, LINE, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)

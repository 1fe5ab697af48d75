"""The results of a comparison as CSV, one a line."""

import csv
import io
import math
from dataclasses import asdict, fields

from dermsynth.evaluation.comparison import MEAN, Comparison, Result

DOUBTS = "not_established"


def table(comparison: Comparison) -> str:
    """Every result, six significant digits, blank where there is nothing to say.

    The last column says why a difference is not established; the mean over seeds then has no p.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*(f.name for f in fields(Result)), DOUBTS], lineterminator="\n")
    writer.writeheader()
    for result in comparison.results:
        doubts = comparison.not_established(result)
        cells = {**asdict(result), DOUBTS: "; ".join(doubts)}
        if doubts and result.seeds == MEAN:
            cells |= {"p": None, "p_holm": None, "smallest_difference": None}
        for name, value in cells.items():
            if isinstance(value, float):
                cells[name] = "" if math.isnan(value) else f"{value:.6g}"
        writer.writerow(cells)
    return buffer.getvalue()

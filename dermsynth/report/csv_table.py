"""The results of a comparison as CSV, one a line."""

import csv
import io
import math
from dataclasses import asdict, fields

from dermsynth.evaluation.comparison import MEAN, Comparison, Result

DOUBTS = "not_established"


def table(comparison: Comparison) -> str:
    """Every result, six significant digits, blank where there is nothing to say.

    The last column says why a difference is not established; the mean over seeds then has no p. There is a column for
    metrics whose lower values are better only if one is.
    """
    buffer = io.StringIO()
    columns = [f.name for f in fields(Result)]
    if all(result.difference_high_90 is None for result in comparison.results):
        columns.remove("difference_high_90")
    writer = csv.DictWriter(buffer, [*columns, DOUBTS], extrasaction="ignore", lineterminator="\n")
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

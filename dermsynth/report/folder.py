"""The folder of a comparison: its text, its table and its plot."""

import io
from pathlib import Path

from dermsynth.errors import InputError
from dermsynth.evaluation.comparison import Comparison
from dermsynth.files import make_folder, write_atomically, write_bytes_atomically
from dermsynth.report.csv_table import table
from dermsynth.report.figures import plot
from dermsynth.report.findings import FOREST_PLOT
from dermsynth.report.text import text

TEXT, TABLE = "comparison.txt", "comparison.csv"
FILES = (TEXT, TABLE, FOREST_PLOT)


def write(comparison: Comparison, out: Path) -> str:
    """Write comparison.txt, comparison.csv and comparison.png into a folder; return the text.

    Raises:
        InputError: `out` is a file, or no folder can be made there.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: this is a file; give a folder.")
    make_folder(out)
    report = text(comparison)
    write_atomically(out / TABLE, table(comparison))
    picture = io.BytesIO()
    plot(comparison).savefig(picture, format="png", dpi=160)
    write_bytes_atomically(out / FOREST_PLOT, picture.getvalue())
    write_atomically(out / TEXT, report)
    return report

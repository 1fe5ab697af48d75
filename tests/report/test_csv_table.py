import csv
import io

from dermsynth.report.csv_table import table


def test_table_has_every_row_as_fractions_and_blanks(comparison):
    c = comparison(smallest_difference=float("nan"))
    rows = list(csv.DictReader(io.StringIO(table(c))))
    assert len(rows) == len(c.results)
    assert "difference_high_90" not in rows[0]
    first = rows[0]
    assert (first["arm"], first["seeds"], first["metric"]) == ("real", "mean", "accuracy")
    assert (first["value"], first["difference"], first["test"]) == ("0.8173", "", "")
    hybrid = next(r for r in rows if r["arm"] == "hybrid" and r["seeds"] == "mean")
    assert (hybrid["difference_low"], hybrid["p_holm"], hybrid["smallest_difference"]) == (
        "-0.007",
        "0.13",
        "",
    )
    ensemble = next(r for r in rows if r["arm"] == "hybrid" and r["seeds"] == "ensemble")
    assert (ensemble["only_baseline_correct"], ensemble["only_arm_correct"]) == ("26", "40")

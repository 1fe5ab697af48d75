"""A study that is run: what it makes, and what it does a second time."""

import csv
import json

from dermsynth.data import manifest
from dermsynth.evaluation.runs import read_arms


def test_it_ends_with_the_comparison_of_all_arms(finished):
    _, out = finished
    with (out / "comparison" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["arm"] for row in rows} == {"real", "repeated", "hybrid"}
    text = (out / "comparison" / "comparison.txt").read_text()
    assert "Baseline: real" in text
    assert "No arm here repeats real images" not in text
    elsewhere = (out / "external" / "elsewhere" / "comparison" / "comparison.txt").read_text()
    assert "Comparison of 3 arms on 3 images" in elsewhere  # of its test split
    assert "Comparison of 3 arms on 6 images" in text


def test_runs_say_what_they_are(finished):
    _, out = finished
    (run,) = read_arms([out / "runs" / "hybrid-gen0-seed0"])["hybrid"]
    assert (run.arm, run.seed, run.generator, run.mix, run.shows_generated) == ("hybrid", 0, 0, "Ratio", True)
    (run,) = read_arms([out / "runs" / "repeated-seed0"])["repeated"]
    assert (run.generator, run.shows_generated) == (None, False)
    assert manifest.read(out / "sets" / "synthetic-seed0").info["generator_seed"] == 0


def test_products_say_what_they_were_made_from(finished):
    file, out = finished
    table = manifest.sha256_file(file.parent / "real" / "metadata.csv")
    of_fit = json.loads((out / "runs" / "hybrid-gen0-seed0" / "made_from.json").read_text())
    generated = manifest.sha256_file(out / "sets" / "synthetic-seed0" / "metadata.csv")
    assert of_fit["fit"]["inputs"] == {"data.real": table, "data.synthetic.0": generated}
    best = manifest.sha256_file(out / "runs" / "hybrid-gen0-seed0" / "checkpoints" / "best.ckpt")
    assert of_fit["test"]["inputs"] == {**of_fit["fit"]["inputs"], "ckpt_path": best}

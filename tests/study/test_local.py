"""A study that is run: what it makes, and what it does a second time."""

import csv
import io
import json
import shutil

import pytest

from dermsynth.cli import main
from dermsynth.data.phantoms import patients
from dermsynth.data.sets import manifest
from dermsynth.errors import InputError
from dermsynth.evaluation.runs import read_arms
from dermsynth.study.artefacts import look
from dermsynth.study.local import Runner
from dermsynth.study.overview import Overview
from dermsynth.study.plan import Step
from tests.study.helpers import forked, run


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


def test_a_study_that_is_changed_while_it_runs_does_not_pass_for_one_that_was_not(finished, tmp_path):
    file, out = finished
    shutil.copytree(file.parent, tmp_path / "kept", symlinks=True)
    arm = file.parent / "arms" / "hybrid.yaml"

    def changing(*words):
        arm.write_text(arm.read_text().replace("0.5", "0.25"))
        return forked(*words)

    shutil.rmtree(out / "comparison")
    with pytest.raises(InputError, match=r"was changed while it ran, so that fit hybrid-gen0-seed0 are of what it was"):
        run(file, out, launch=changing)
    assert (out / "comparison" / "comparison.txt").is_file()
    shutil.rmtree(file.parent)
    shutil.copytree(tmp_path / "kept", file.parent, symlinks=True)


def test_jobs_run_side_by_side_on_a_gpu_each(tmp_path):
    sets = [tmp_path / name for name in "abc"]
    words = [("phantoms", "--out", str(out), "--patients", "1", "--size", "16") for out in sets]
    steps = [Step(out.name, of, (), out / "train.csv") for out, of in zip(sets, words, strict=True)]
    given, at_once = [], []

    def noting(words, log, environment):
        given.append(environment)
        process = forked(words, log, environment)
        at_once.append(process)
        assert sum(process.poll() is None for process in at_once) <= 2
        return process

    said = io.StringIO()
    Runner(steps, tmp_path, 2, ("4", "6"), Overview(steps, 2, said), noting).run()
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in given[:2]] == ["4", "6"]
    assert all(step.makes.is_file() for step in steps)
    assert "[3 of 3 done]" in said.getvalue()


def test_drawn_lesions_that_were_broken_off_are_resumed(tmp_path, monkeypatch):
    def fails(phantom, seed, size):
        raise KeyboardInterrupt

    words = ("phantoms", "--out", str(tmp_path / "phantoms"), "--patients", "1", "--size", "16")
    step = Step("phantoms", words, (), tmp_path / "phantoms" / "train.csv")
    assert look(step).state == "absent"
    with monkeypatch.context() as patch:
        patch.setattr(patients, "picture", fails)
        assert main(list(words)) == 130
    assert look(step).state == "begun"
    assert main(list(words)) == 0
    assert look(step).state == "done"

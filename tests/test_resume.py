"""Runs that are stopped and go on end with the weights of one that was not, bit for bit."""

import resource
import sys

import pytest

from tests.interruptions import assert_same, checkpoint, classifier, dreambooth, fit


@pytest.fixture(autouse=True)
def _no_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dermsynth"])


def until_finished(recipe, run, *more, attempts=40):
    """Give the same command again until it ends well; how often that was."""
    for attempt in range(1, attempts + 1):
        try:
            if fit(recipe, run, *more) == 0:
                return attempt
        except RuntimeError as error:
            assert str(error) == "stopped by the test"
    raise AssertionError(f"not finished after {attempts} attempts")


def stop_at_each_batch(folder):
    notes = folder / "notes"
    notes.mkdir()
    path = folder / "stops.yaml"
    path.write_text(
        "trainer: {callbacks+: [{class_path: tests.interruptions.AtEachBatch, init_args: {notes: %s}}]}\n" % notes
    )
    return ["--config", str(path)]


@pytest.mark.parametrize(
    "options",
    [
        {"ema": True, "accumulate": 2, "max_steps": 5},
        {"lora": True},
        {"lora": True, "ema": True, "accumulate": 3, "max_steps": -1, "max_epochs": 2, "limit_val_batches": 0},
    ],
    ids=["all weights", "lora", "without validation"],
)
def test_a_run_stopped_at_every_batch_ends_as_one_that_was_not(base, tmp_path, options):
    recipe = dreambooth(tmp_path, base, **options)
    assert fit(recipe, tmp_path / "whole") == 0
    attempts = until_finished(recipe, tmp_path / "stopped", *stop_at_each_batch(tmp_path))
    assert attempts > checkpoint(tmp_path / "whole")["global_step"]
    assert_same(tmp_path / "whole", tmp_path / "stopped")


def test_a_classifier_with_dropout_goes_on_with_the_same_units_dropped(tmp_path):
    recipe = classifier(tmp_path)
    assert fit(recipe, tmp_path / "whole") == 0
    until_finished(recipe, tmp_path / "stopped", *stop_at_each_batch(tmp_path))
    assert_same(tmp_path / "whole", tmp_path / "stopped")

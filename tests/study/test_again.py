"""The same study again: nothing is done twice, and what its inputs or settings ask for is done again, and no more."""

import json
import shutil

import pytest
import yaml

from dermsynth.data.sets.manifest import BEGUN
from dermsynth.errors import InputError
from dermsynth.study import declaration
from dermsynth.study.artefacts import look
from dermsynth.study.lock import locked
from dermsynth.study.plan import plan
from tests.study.helpers import change


def states(file, out):
    """What is found of each step's product, by its name."""
    return {step.name: look(step) for step in plan(declaration.read(file), out)}


def not_done(file, out):
    return {name: product for name, product in states(file, out).items() if product.state != "done"}


def test_a_finished_one_is_done(again):
    assert not_done(*again) == {}


def test_settings_of_one_arm_are_that_arms_alone(again):
    file, out = again
    change(file.parent / "arms" / "hybrid.yaml", "data.init_args.mix.init_args.ratio", 0.4)
    found = not_done(file, out)
    assert list(found) == ["fit hybrid-gen0-seed0"]
    assert found["fit hybrid-gen0-seed0"].state == "other"
    assert found["fit hybrid-gen0-seed0"].why == "data.init_args.mix.init_args.ratio: 0.5 there, 0.4 here"


def test_flags_that_only_say_where_or_in_what_order_change_nothing(again):
    file, out = again
    content = yaml.safe_load(file.read_text())
    content["classifier"]["flags"] = {"trainer.max_steps": 4}  # as in the recipe
    content["arms"] = dict(reversed(content["arms"].items()))
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    # The comparison names the arms in the order of the file.
    assert set(not_done(file, out)) <= {"compare"}


def test_another_content_of_an_input_is_seen_and_another_time_is_not(again):
    file, out = again
    table = out / "sets" / "synthetic-seed0" / "metadata.csv"
    table.touch()
    assert not_done(file, out) == {}
    text = table.read_text()
    table.write_text(text.replace("nobody", "somebody"))
    found = not_done(file, out)
    assert set(found) == {
        "fit repeated-seed0",
        "fit hybrid-gen0-seed0",
        "test repeated-seed0",
        "test hybrid-gen0-seed0",
    }
    assert found["fit hybrid-gen0-seed0"].why == "another content of data.synthetic.0"


def test_images_that_were_begun_are_gone_on_with_or_moved(again):
    file, out = again
    made = out / "sets" / "synthetic-seed0"
    (made / "metadata.csv").unlink()
    name = next(step.name for step in plan(declaration.read(file), out) if step.makes.parent == made)
    assert states(file, out)[name].state == "absent"
    (made / BEGUN).touch()
    assert states(file, out)[name].state == "begun"
    settings = made / "predict.yaml"
    settings.write_text(settings.read_text().replace("guidance_scale:", "guidance_scale: 9 #"))
    assert states(file, out)[name].state == "other"


def test_a_checkpoint_that_changed_is_tested_again(again):
    file, out = again
    run = out / "runs" / "real-seed0"
    shutil.copy(run / "checkpoints" / "last.ckpt", run / "checkpoints" / "best.ckpt")
    with (run / "checkpoints" / "best.ckpt").open("ab") as best:
        best.write(b"\0")
    assert {name: product.why for name, product in not_done(file, out).items()} == {
        "test real-seed0": "another content of ckpt_path",
        "test on elsewhere real-seed0": "another content of ckpt_path",
    }


def test_predictions_that_changed_are_compared_again(again):
    file, out = again
    predictions = out / "runs" / "real-seed0" / "predictions.csv"
    predictions.write_text(predictions.read_text() + "\n")
    found = not_done(file, out)
    assert list(found) == ["compare"]
    assert found["compare"].why == "another content of real-seed0/predictions.csv"


@pytest.mark.parametrize("lost", ["made_from.json", "fit.yaml"])
def test_a_run_that_does_not_say_what_it_was_made_from_is_not_trusted(again, lost):
    file, out = again
    (out / "runs" / "real-seed0" / lost).unlink()
    assert states_of_fit(file, out).state == "other"


def test_what_is_not_finished_goes_on_and_what_is_not_begun_begins(again):
    file, out = again
    run = out / "runs" / "real-seed0"
    (run / "finished").unlink()
    assert states_of_fit(file, out).state == "begun"
    shutil.rmtree(run / "checkpoints")
    assert states_of_fit(file, out).state == "absent"


def states_of_fit(file, out):
    (step,) = [step for step in plan(declaration.read(file), out) if step.name == "fit real-seed0"]
    return look(step)


def test_two_studies_in_one_folder(finished):
    _, out = finished
    with (
        locked(out),
        pytest.raises(InputError, match=r"--out .*: a study \(process \d+ on .*\), or a step that it left"),
        locked(out),
    ):
        pass
    with locked(out):
        pass


def test_made_from_keeps_an_entry_a_command(finished):
    _, out = finished
    entries = json.loads((out / "runs" / "real-seed0" / "made_from.json").read_text())
    assert set(entries) == {"fit", "test"}

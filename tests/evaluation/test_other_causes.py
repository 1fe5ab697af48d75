import pytest

from dermsynth.errors import InputError
from dermsynth.evaluation.other_causes import notes
from dermsynth.evaluation.runs import read_arms
from tests.evaluation.written_runs import configured, write


def test_notes_name_what_else_differs_within_an_arm_and_unequal_steps(tmp_path):
    matched = [configured(tmp_path / f"{arm}-seed{n}", seed=n, lr=1) for arm in ("a", "b") for n in (1, 2)]
    assert list(notes(read_arms([*matched, write(tmp_path / "bare")]))) == []
    configured(matched[3], seed=2, lr=1, cache="elsewhere")
    assert list(notes(read_arms(matched))) == []
    configured(matched[3], seed=2, lr=1, callback="b")
    (said,) = notes(read_arms(matched))
    where = "trainer.callbacks.a.class_path, trainer.callbacks.b.class_path"
    assert said == f"the runs of b differ in more than their seed: {where}."
    configured(matched[3], seed=2, lr=3)
    assert list(notes(read_arms(matched))) == ["the runs of b differ in more than their seed: model.optimizer.lr."]
    for number, folder in enumerate(matched):
        configured(folder, steps=300 if number > 1 else 100)
    (said,) = notes(read_arms(matched))
    assert said.startswith("trainer.max_steps is not the same in all arms (a 100, b 300)")
    for number, folder in enumerate(matched):
        configured(folder, lr=2 if number > 1 else 1)
    assert list(notes(read_arms(matched))) == ["the arms differ in more than their images: model.optimizer.lr."]
    (matched[0] / "fit.yaml").write_text("trainer: [")
    with pytest.raises(InputError, match=r"a-seed1.fit\.yaml: not YAML"):
        list(notes(read_arms(matched)))

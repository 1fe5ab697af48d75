"""A study file that is wrong is refused in one line that names file and key, before anything is made."""

import copy
import re

import pytest

from dermsynth.cli import main
from dermsynth.errors import InputError
from dermsynth.study import declaration
from dermsynth.study.plan import plan
from tests.builders import CLASSES, make_set
from tests.study.helpers import content, recipes, write_yaml


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a real set, a generated one and recipes."""
    make_set(tmp_path / "real")
    make_set(tmp_path / "theirs", dict.fromkeys(CLASSES, 2), "train", "synthetic", train_split_sha256="unknown")
    recipes(tmp_path, "base")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(here, **changes):
    """What is said of a study, with the file's name and the line taken off."""
    file = write_yaml(here / "study.yaml", {**content(here), **changes})
    with pytest.raises(InputError) as caught:
        declaration.read(file)
    assert "\n" not in str(caught.value)
    said = re.fullmatch(rf"{re.escape(str(file))}(?:, line (\d+))?: (.+)", str(caught.value))
    key = said[2].split(": ")[0].split(".")
    if said[1]:  # where the key's first part or a part of it stands
        assert any(name in file.read_text().splitlines()[int(said[1]) - 1] for name in key)
    return said[2]


def generator(here, **changes):
    return {**content(here)["generator"], **changes}


def arms(here, **changes):
    return {**content(here)["arms"], **changes}


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("data.set", {"data": {"set": "$HOME/real"}}),
        ("data.prepare", {"data": {"prepare": ["$HOME/real"]}}),
        ("data.external.other", {"data": {"set": "real", "external": {"other": "$HOME/real"}}}),
        ("adopted.theirs", {"adopted": {"theirs": "$HOME/real"}}),
        ("classifier.recipe", {"classifier": {"recipe": "$HOME/vit.yaml"}}),
        ("arms.more", {"arms": {"more": "$HOME/real.yaml", "less": "$HOME/real.yaml"}}),
    ],
)
def test_a_variable_in_a_path_is_refused(here, key, changes):
    said = refusal(here, **changes)
    assert said.startswith(key)
    assert ": variables are not filled in here. Write the path itself." in said


def test_a_path_may_begin_at_home(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    given = {
        **content(here),
        "data": {"set": "~/real", "external": {"other": "~/real"}},
        "adopted": {"theirs": "~/theirs"},
    }
    study = declaration.read(write_yaml(here / "study.yaml", given))
    assert (study.data.set, study.data.external["other"]) == (here / "real", here / "real")
    assert study.adopted["theirs"] == here / "theirs"


def test_a_whole_one_is_read(here):
    study = declaration.read(write_yaml(here / "study.yaml", content(here)))
    assert [(arm.name, arm.mix, arm.images) for arm in study.arms] == [
        ("real", "RealOnly", ()),
        ("repeated", "OversampledReal", ("generated",)),
        ("hybrid", "Ratio", ("generated",)),
    ]
    assert study.warnings() == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("claassifier", {}, "claassifier: no such key. Did you mean 'classifier'?"),
        ("data", {"sett": "real"}, "data.sett: no such key. Did you mean 'set'?"),
        ("data", {"set": "nowhere"}, "data.set: no image set nowhere: there is no metadata.csv in it."),
        ("data", {"set": "real", "prepare": "real"}, "data: give one of set, prepare and phantoms"),
        ("data", "real", "data: expected keys with values, found real."),
        ("data", {"set": "real", "external": {"other": "gone"}}, "data.external.other: no image set gone"),
        ("data", {"set": "real", "options": {"size": 8}}, "data.options: they are of `prepare`"),
        ("adopted", {"theirs": "gone"}, "adopted.theirs: no image set gone"),
        ("classifier", {"recipe": "vit.yaml", "seeds": ["x"]}, "classifier.seeds: expected whole numbers"),
        ("classifier", {"recipe": "vit.yaml", "seeds": [0.5]}, "classifier.seeds: expected whole numbers"),
        ("classifier", {"recipe": "vit.yaml", "seeds": [True]}, "classifier.seeds: expected whole numbers"),
        ("classifier", {"recipe": "vit.yaml", "seeds": [-1]}, "classifier.seeds: expected whole numbers"),
        ("classifier", {"recipe": "vit.yaml", "seeds": []}, "classifier.seeds: expected whole numbers"),
        ("classifier", {"recipe": "vit.yaml", "seeds": [1, 1]}, "classifier.seeds: a seed is given twice"),
        ("classifier", {"recipe": "vit.yaml", "steps": float("nan")}, "classifier.steps: expected a whole number"),
        ("classifier", {"recipe": "gone.yaml"}, "classifier.recipe: no such configuration: gone.yaml."),
        ("classifier", {}, "classifier.recipe: it must be given."),
        ("arms", {"real": "arms/real.yaml"}, "arms: name at least two"),
        ("arms", None, "arms: expected keys with values, found nothing."),
        ("comparison", {"baseline": "reel"}, "comparison.baseline: no arm reel; there are real, repeated, hybrid."),
        ("comparison", {"baseline": ["real"]}, "comparison.baseline: expected a name, found ['real']."),
        ("comparison", {"primary": ["auroc"]}, "comparison.primary: expected a name"),
        ("comparison", {"margin": -1}, "comparison.margin: -1 is no margin: expected a fraction above 0 and below 1"),
        ("comparison", {"margin": 0}, "comparison.margin: 0 is no margin: expected a fraction"),
        ("comparison", {"margin": 2}, "comparison.margin: 2 is no margin: expected a fraction"),
        ("comparison", {"margin": float("nan")}, "comparison.margin: nan is no margin: expected a fraction"),
        ("comparison", {"margin": True}, "comparison.margin: expected a number, found True."),
        ("comparison", {"margin": "much"}, "comparison.margin: expected a number, found much."),
        ("comparison", {"family": []}, "comparison.family: it names no arm."),
        ("comparison", {"family": ["hybrid", "hybrid"]}, "comparison.family: hybrid is named twice."),
        (
            "comparison",
            {"family": ["real", "hybrid"]},
            "comparison.family: real is not an arm that is compared with real: repeated, hybrid.",
        ),
        ("comparison", {"primary": "auc"}, "comparison.primary: no metric auc; there are accuracy, auroc, "),
        ("comparison", {"family": ["x"]}, "comparison.family: x is not an arm that is compared with real"),
    ],
)
def test_what_is_wrong_is_named(here, key, value, said):
    assert refusal(here, **{key: value}).startswith(said)


def test_arms_that_are_none(here):
    write_yaml(here / "arms" / "bare.yaml", {"data": {"init_args": {"augmentation": "none"}}})
    assert refusal(here, arms=arms(here, bare="arms/bare.yaml")).startswith("arms.bare: no data.mix")
    assert refusal(here, arms=arms(here, **{"a/b": "arms/real.yaml"})).startswith("arms.a/b: names are letters")
    assert refusal(here, arms=arms(here, **{"a-seed1": "arms/real.yaml"})).startswith("arms.a-seed1: names are")
    said = refusal(here, arms=arms(here, hybrid={"config": "arms/hybrid.yaml", "setps": 3}))
    assert said.startswith("arms.hybrid.setps: no such key. Did you mean 'steps'?")
    said = refusal(here, arms=arms(here, hybrid={"config": "arms/hybrid.yaml", "images": "theirs"}))
    assert said == "arms.hybrid.images: no images are called theirs; there are generated."
    said = refusal(here, generator=generator(here, variants={"a": {"model.sampling.steps": 1}, "b": {}}))
    assert said.startswith("arms.repeated: say which of the images a, b it takes")


def test_two_arms_of_one_name(here):
    file = write_yaml(here / "study.yaml", content(here))
    file.write_text(file.read_text().replace("  hybrid: ", "  real: "))
    with pytest.raises(InputError, match=r"study\.yaml: the key 'real' is given twice, in lines \d+ and \d+"):
        declaration.read(file)


def test_arms_without_images_to_mix(here):
    declared = content(here)
    del declared["generator"]
    with pytest.raises(InputError, match=r"arms\.repeated: OversampledReal takes generated images"):
        declaration.read(write_yaml(here / "study.yaml", declared))


def test_a_generator_that_was_fitted_on_another_split(here):
    make_set(here / "other", dict.fromkeys(CLASSES, 2), "train", "synthetic", train_split_sha256="ab" * 32)
    said = refusal(here, adopted={"other": "other"})
    assert said.startswith("adopted.other: the generator of other was fitted on another train split (abababababab)")


def test_adopted_sets_are_answered_for_only_if_nobody_knows_their_split(here):
    file = write_yaml(here / "study.yaml", {**content(here), "adopted": {"they": "theirs"}})
    assert declaration.read(file).foreign == ("theirs",)


def test_without_a_control_it_warns(here):
    declared = content(here)
    del declared["arms"]["repeated"]
    (said,) = declaration.read(write_yaml(here / "study.yaml", declared)).warnings()
    assert "no arm repeats real images" in said
    assert "as many steps as hybrid" in said
    declared = content(here)
    declared["arms"]["repeated"] = {"config": declared["arms"]["repeated"], "steps": 3}
    assert declaration.read(write_yaml(here / "study.yaml", declared)).warnings()


def test_a_flag_that_its_command_does_not_know_is_found_before_anything_is_made(here, capsys):
    declared = content(here, classifier={"recipe": "vit.yaml", "flags": {"model.widht": 3}})
    file = write_yaml(here / "study.yaml", declared)
    assert main(["study", str(file), "--out", "out"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"dermsynth: error: {file}: step `fit real-seed0`: ")
    assert "widht" in said
    assert not (here / "out").exists()


def test_steps_that_end_before_the_first_validation_are_found_before_anything_is_made(here, capsys):
    declared = content(here, classifier={"recipe": "vit.yaml", "steps": 1})
    file = write_yaml(here / "study.yaml", declared)
    assert main(["study", str(file), "--out", "out", "--dry-run"]) == 2
    assert "trainer.val_check_interval: 2 is more than trainer.max_steps, 1" in capsys.readouterr().err
    assert not (here / "out").exists()


NONSENSE = [None, 1, -1, "x", "", [], {}, [1], [[]], {"a": 1}, {1: 2}, {"a": None}, float("nan"), True, ["x", None]]


def keys(content, *above):
    """Every key of nested mappings, as a path."""
    for name, value in content.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from keys(value, *above, name)


def spoilt(whole, *below):
    """Copies of what a study says, in which one value is nonsense; of those below a key, or of all."""
    for path in keys(whole):
        for value in NONSENSE if path[: len(below)] == below else ():
            copied = copy.deepcopy(whole)
            inner = copied
            for name in path[:-1]:
                inner = inner[name]
            inner[path[-1]] = value
            yield path, value, copied


def test_nonsense_at_any_key_is_one_line_or_has_a_meaning(here):
    whole = content(here)
    whole["data"]["external"] = {"clinic": "real"}
    whole["generator"] |= {"prior": "generate.yaml", "variants": {"a": {"model.x": 1}}, "flags": {}, "shards": 1}
    whole |= {"adopted": {"they": "theirs"}, "comparison": {"baseline": "real", "family": ["hybrid"], "margin": 0.1}}
    whole["classifier"] |= {"steps": 3, "flags": {"data.size": 16}}
    for name in ("repeated", "hybrid"):
        whole["arms"][name] = {"config": whole["arms"][name], "images": "a"}
    whole["arms"]["more"] = {"config": "arms/hybrid.yaml", "steps": 2, "images": "they", "data.mix.ratio": 0.2}
    prepared = {**whole, "data": {"prepare": "real", "options": {"size": 8}, "classes": ["NV", "MEL"]}}
    drawn = {**whole, "data": {"phantoms": {"size": 16}, "options": {"size": 8}}}
    for study in (whole, prepared, drawn):
        assert plan(declaration.read(write_yaml(here / "study.yaml", study)), here / "out")
    tried = [*spoilt(whole), *spoilt(prepared, "data"), *spoilt(drawn, "data")]
    said = []
    for path, value, study in tried:
        try:
            plan(declaration.read(write_yaml(here / "study.yaml", study)), here / "out")
        except InputError as error:
            said.append((path, value, str(error)))
    assert len(tried) > 400
    assert len(said) > len(tried) / 2
    assert [line for line in said if "\n" in line[2]] == []

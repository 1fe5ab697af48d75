"""A study file that is wrong is refused in one line that names file and key, before anything is made."""

import copy
import io
import re

import pytest
import yaml

from dermsynth.cli import main
from dermsynth.data.sets import manifest
from dermsynth.errors import InputError
from dermsynth.study import declaration
from dermsynth.study.checks import check, checks_of, warnings
from dermsynth.study.local import Runner
from dermsynth.study.overview import Overview
from dermsynth.study.plan import plan
from tests.builders import CLASSES, make_set
from tests.study.helpers import checked, content, recipes, write_yaml


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


def changed(here, changes):
    """A study file whose sections say this as well; `data` says this alone."""
    whole = {name: {**value, **changes.get(name, {})} for name, value in content(here).items()}
    whole |= {name: value for name, value in changes.items() if name == "data" or name not in whole}
    return write_yaml(here / "study.yaml", whole)


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
    assert warnings(study, plan(study, here / "out")) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("claassifier", {}, "claassifier: no such key. Did you mean 'classifier'?"),
        ("data", {"sett": "real"}, "data.sett: no such key. Did you mean 'set'?"),
        ("data", {"set": "nowhere"}, "data.set: no image set nowhere: there is no metadata.csv in it."),
        ("data", {"set": "real", "prepare": "real"}, "data: give one of set, prepare and phantoms"),
        ("data", "real", "data: expected keys with values, found real."),
        ("data", {"set": "real", "options": {"size": 8}}, "data.options: they are of `prepare`"),
        (
            "adopted",
            {"theirs": "real"},
            "adopted.theirs: image r_NV_000 of real is real. Name a set of",
        ),
        ("data", {"set": "theirs"}, "data.set: image s_NV_000 of theirs is generated. Name a set of real images."),
        ("data", {"set": "real", "external": {"it": "theirs"}}, "data.external.it: image s_NV_000 of theirs is gene"),
        ("data", {"set": "real", "classes": ["DF"]}, "data.set: real has no train image of DF. Look at data.classes."),
        ("data", {"set": "real", "classes": ["A", "B"]}, "data.classes: A, B not known."),
        ("data", {"prepare": []}, "data.prepare: name at least one download."),
        ("adopted", {"theirs": None}, "adopted.theirs: expected a name, found nothing."),
        ("data", {"set": "real", "classes": []}, "data.classes: [] is empty or repeats a class."),
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


def test_each_split_that_an_adopted_set_names_is_looked_at(here):
    folder = make_set(here / "mixed", dict.fromkeys(CLASSES, 2), "train", "synthetic", train_split_sha256="ab" * 32)
    real = manifest.train_split_sha256(manifest.read(here / "real").records)
    table = folder / "metadata.csv"
    table.write_text(table.read_text().replace("ab" * 32, real, 5))
    assert refusal(here, adopted={"mixed": "mixed"}).startswith("adopted.mixed: the generator of mixed was fitted on a")
    table.write_text(table.read_text().replace("ab" * 32, "unknown"))
    study = declaration.read(write_yaml(here / "study.yaml", {**content(here), "adopted": {"mixed": "mixed"}}))
    assert study.foreign == ("mixed",)


def test_adopted_sets_are_looked_at_once_it_is_known_who_is_trained_on(here):
    make_set(here / "other", dict.fromkeys(CLASSES, 2), "train", "synthetic", train_split_sha256="ab" * 32)
    given = {**content(here), "data": {"prepare": "real"}, "adopted": {"other": "other"}}
    given["arms"]["more"] = {"config": "arms/hybrid.yaml", "images": "other"}
    for arm in ("repeated", "hybrid"):
        given["arms"][arm] = {"config": given["arms"][arm], "images": "generated"}
    study = declaration.read(write_yaml(here / "study.yaml", given))
    steps, begun = plan(study, here / "out"), []

    class Prepared:
        def poll(self):
            return 0

    def launch(words, log, environment):
        begun.append(words[0])
        make_set(here / "out" / "sets" / "real")
        return Prepared()

    said = io.StringIO()
    runner = Runner(steps, here / "out", 1, (), Overview(steps, 1, said), launch, checks_of(study, steps))
    with pytest.raises(InputError, match="1 of"):
        runner.run()
    assert begun == ["prepare"]  # and no generator
    assert "adopted.other: the generator of other was fitted on another train split (abababababab)" in said.getvalue()


def test_sets_that_are_missing_stop_the_study_and_not_its_preview(here):
    given = {**content(here), "adopted": {"they": "gone"}}
    given["data"] |= {"external": {"clinic": "away"}}
    given["arms"]["more"] = {"config": "arms/hybrid.yaml", "images": "they"}
    for arm in ("repeated", "hybrid"):
        given["arms"][arm] = {"config": given["arms"][arm], "images": "generated"}
    study = declaration.read(write_yaml(here / "study.yaml", given))
    external, adopted = study.missing()
    assert re.search(r"study\.yaml, line \d+: data\.external\.clinic: no image set away: there is no", external)
    assert re.search(r"study\.yaml, line \d+: adopted\.they: no image set gone: .* Make it first", adopted)
    (step,) = [step for step in plan(study, here / "out") if step.name == "fit more-seed0"]
    assert "[gone]" in step.words


def test_adopted_sets_are_answered_for_only_if_nobody_knows_their_split(here):
    file = write_yaml(here / "study.yaml", {**content(here), "adopted": {"they": "theirs"}})
    assert declaration.read(file).foreign == ("theirs",)


def test_without_a_control_it_warns(here):
    declared = content(here)
    del declared["arms"]["repeated"]
    (said,) = warned(here, declared)
    assert "no arm repeats real images" in said
    assert "as many steps as hybrid" in said


@pytest.mark.parametrize(
    ("arm", "extra", "warns"),
    [
        ("repeated", {"steps": 3}, True),
        ("repeated", {"steps": 4}, False),  # as the recipe
        ("hybrid", {"trainer.max_steps": 8}, True),
        ("hybrid", {"trainer": {"max_steps": 8}}, True),  # in its overlay
    ],
)
def test_steps_are_compared_as_they_are_taken(here, arm, extra, warns):
    declared = content(here)
    files = [f"arms/{arm}.yaml"]
    if "trainer" in extra:
        files.append(str(write_yaml(here / "longer.yaml", extra)))
    flags = {key: value for key, value in extra.items() if key != "trainer"}
    declared["arms"][arm] = {"config": files, **flags}
    assert bool(warned(here, declared)) == warns


def warned(here, declared):
    study = declaration.read(write_yaml(here / "study.yaml", declared))
    return warnings(study, plan(study, here / "out"))


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        (
            {"classifier": {"flags": {"model.widht": 3}}},
            "classifier.flags.model.widht",
            "no para",
        ),
        ({"arms": {"more": {"config": "arms/real.yaml", "data.sise": 8}}}, "arms.more.data.sise", "no parameter"),
        ({"arms": {"more": {"config": "arms/real.yaml", "data.size": "big"}}}, "arms.more.data.size", "big is not a"),
        ({"data": {"phantoms": {"patients": "x"}}}, "data.phantoms.patients", "x is not a whole number"),
        ({"data": {"phantoms": {"patients": -10}}}, "data.phantoms.patients", "-10: expected 1 to"),
        ({"data": {"phantoms": {}, "options": {"size": 0}}}, "data.options.size", "0: expected 1 to"),
        ({"generator": {"count": 0}}, "generator.count", "0 must give each"),
        ({"generator": {"count": -3}}, "generator.count", "-3 must give each"),
        ({"generator": {"count": {}}}, "generator.count", "must give each"),
        ({"generator": {"count": {"XX": 3}}}, "generator.count", "must give each"),
        (
            {"arms": {"more": {"config": "arms/hybrid.yaml", "data.mix.ratio": 7}}},
            "arms.more.data.mix.ratio",
            "7.0 is out",
        ),
        ({"generator": {"recipe": "vit.yaml"}}, "generator.recipe", "model is Classifier, where a study's generator"),
        (
            {"generator": {"generate": "dreambooth.yaml", "count": None}},
            "generator.generate",
            "data is DreamBoothData, where a",
        ),
        ({"classifier": {"recipe": "dreambooth.yaml"}}, "classifier.recipe", "model is DreamBooth, where a study's"),
    ],
)
def test_what_a_command_refuses_is_named_by_its_key_before_anything_is_made(here, changes, key, said):
    file = changed(here, changes)
    with pytest.raises(InputError, match=rf"^{re.escape(str(file))}, line \d+: {re.escape(key)}: .*{said}"):
        checked(file, here / "out")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classifier": {"flags": {"trainer.callbacks": []}}}, "no PredictionsWriter"),
        ({"classifier": {"flags": {"without": ["ModelCheckpoint"]}}}, "no ModelCheckpoint keeps checkpoints/best.ckpt"),
        ({"classifier": {"flags": {"trainer.fast_dev_run": True}}}, "trainer.fast_dev_run: "),
        ({"classifier": {"flags": {"trainer.enable_checkpointing": False}}}, "trainer.enable_checkpointing: "),
        ({"generator": {"variants": {"generated": {"trainer.callbacks": []}}}}, "no ImageSetWriter"),
    ],
)
def test_a_recipe_that_leaves_nothing_for_the_next_step_is_found_before_anything_is_made(here, changes, said):
    with pytest.raises(InputError, match=said):
        checked(changed(here, changes), here / "out")


def test_a_best_checkpoint_of_another_name_is_found_before_anything_is_made(here):
    recipe = yaml.safe_load((here / "vit.yaml").read_text())
    arguments = {"filename": "top", "monitor": "val/loss"}
    keeper = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": arguments}
    recipe["trainer"]["callbacks"].append(keeper)
    write_yaml(here / "vit.yaml", recipe)
    with pytest.raises(InputError, match=r"no ModelCheckpoint keeps checkpoints/best\.ckpt"):
        checked(changed(here, {}), here / "out")


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("classifier.flags.seed_everything", {"classifier": {"flags": {"seed_everything": 5}}}),
        ("classifier.flags.run", {"classifier": {"flags": {"run": "foo"}}}),
        ("classifier.flags.config", {"classifier": {"flags": {"config": "vit.yaml"}}}),
        ("classifier.flags.data", {"classifier": {"flags": {"data": {"real": "x"}}}}),
        (
            "classifier.flags.trainer.max_steps",
            {"classifier": {"steps": 4, "flags": {"trainer.max_steps": 8}}},
        ),
        ("arms.more.data.init_args.real", {"arms": {"more": {"config": "arms/real.yaml", "data.init_args.real": "x"}}}),
        ("arms.more.data.synthetic+", {"arms": {"more": {"config": "arms/hybrid.yaml", "data.synthetic+": "x"}}}),
        ("generator.variants.a.ckpt_path", {"generator": {"variants": {"a": {"ckpt_path": "x"}}}}),
        ("generator.flags.data.classes", {"generator": {"flags": {"data.classes": ["NV"]}}}),
        ("data.phantoms.out", {"data": {"phantoms": {"out": "x"}}}),
        ("data.options.out", {"data": {"phantoms": {}, "options": {"out": "x"}}}),
    ],
)
def test_what_the_study_itself_gives_cannot_be_a_flag(here, key, changes):
    file = changed(here, changes)
    with pytest.raises(InputError, match=rf"line \d+: {re.escape(key)}: the study itself gives it\. Leave it out\."):
        plan(declaration.read(file), here / "out")


def test_steps_that_end_before_the_first_validation_are_found_before_anything_is_made(here, capsys):
    flags = {"trainer.val_check_interval": 4}
    declared = content(here, classifier={"recipe": "vit.yaml", "steps": 3, "flags": flags})
    file = write_yaml(here / "study.yaml", declared)
    assert main(["study", str(file), "--out", "out", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "classifier.flags.trainer.val_check_interval: 4 is more than trainer.max_steps, 3" in said
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


#: What of all that nonsense has a meaning, and so is taken, by its key.
MEANT = {
    "data.external": [{}],
    "data.options": [{}],
    "data.phantoms": [{}],
    "data.options.size": [1],
    "generator.count": [None, 1],
    "generator.seeds": [1, [1]],
    "generator.shards": [None, 1],
    "generator.variants.a": [{}],
    "generator.variants.a.data.batch_size": [1],
    "generator.flags": [{}],
    "classifier.seeds": [1, [1]],
    "classifier.steps": [None],
    "classifier.flags": [{}],
    "arms.repeated.images": [[]],
    "arms.hybrid.images": [[]],
    "arms.more.images": [[]],
    "arms.more.steps": [None],
    "arms.more.data.mix.ratio": [1],
    "comparison": [{}],
}


def test_nonsense_at_any_key_is_one_line_or_has_a_meaning(here):
    whole = content(here)
    whole["data"]["external"] = {"clinic": "real"}
    prior = yaml.safe_load((here / "generate.yaml").read_text())
    prior["model"]["init_args"]["base"] = "base"
    write_yaml(here / "prior.yaml", prior)
    variants = {"a": {"data.batch_size": 2}}
    whole["generator"] |= {"prior": "prior.yaml", "variants": variants, "flags": {}, "shards": 1}
    whole |= {"adopted": {"they": "theirs"}, "comparison": {"baseline": "real", "family": ["hybrid"], "margin": 0.1}}
    whole["classifier"] |= {"steps": 3, "flags": {"data.size": 16}}
    for name in ("repeated", "hybrid"):
        whole["arms"][name] = {"config": whole["arms"][name], "images": "a"}
    whole["arms"]["more"] = {"config": "arms/hybrid.yaml", "steps": 2, "images": "they", "data.mix.ratio": 0.2}
    prepared = {**whole, "data": {"prepare": "real", "options": {"size": 8}, "classes": ["NV", "MEL"]}}
    drawn = {**whole, "data": {"phantoms": {"size": 16}, "options": {"size": 8}}}
    for study in (whole, prepared, drawn):
        assert checked(write_yaml(here / "study.yaml", study), here / "out")
    tried = [*spoilt(whole), *spoilt(prepared, "data"), *spoilt(drawn, "data")]
    assert len(tried) > 400
    taken: dict[str, list[object]] = {}
    said = []
    for path, value, study in tried:
        key, file = ".".join(path), write_yaml(here / "study.yaml", study)
        try:
            declared = declaration.read(file)
            if not declared.missing():
                check_first(plan(declared, here / "out"), key, file)
                if value not in taken.setdefault(key, []):
                    taken[key].append(value)
        except InputError as error:
            said.append((path, value, str(error)))
    assert [line for line in said if "\n" in line[2]] == []
    assert {key: values for key, values in taken.items() if values} == MEANT


def check_first(steps, key, file):
    """Check the first step that a key of the study file has a say in."""
    for step in steps:
        if any(f"{origin}.".startswith(f"{key}.") for origin in step.origins.values()):
            return check(step, file)
    return None

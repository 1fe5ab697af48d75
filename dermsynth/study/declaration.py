"""What a study file declares, checked whole before anything is made. No torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dermsynth import lesions
from dermsynth.data.sets.manifest import METADATA, train_split_sha256
from dermsynth.data.sets.manifest import read as read_set
from dermsynth.errors import InputError
from dermsynth.evaluation.choices import check_family, check_margin, choose_baseline
from dermsynth.evaluation.metrics import OVERALL
from dermsynth.run.yaml_files import read_yaml
from dermsynth.study.section import Section, mistake
from dermsynth.study.sets import Origin, check_set, fitted_on, foreign, is_set

#: Mixes that take no generated set; the second takes sets and shows none of their images.
REAL_ONLY, REPEATED = "RealOnly", "OversampledReal"
#: How the images of the study's own generator are called, if it makes them in one way.
GENERATED = "generated"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_NUMBERED = re.compile(r".*-(seed|gen)\d+")  # as runs' folders end


@dataclass(frozen=True)
class Recipe:
    """Configuration files, one on another, and flags on top.

    Args:
        files: of configurations; none where there are flags alone.
        flags: by their names, without the dashes.
        key: under which the flags stand in the study file.
    """

    files: tuple[Path, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""

    def content(self) -> dict[str, Any]:
        """What the files say together, as far as that can be told without their classes."""
        merged: dict[str, Any] = {}
        for file in self.files:
            merged = _merge(merged, read_yaml(file))
        return merged


@dataclass(frozen=True)
class Data:
    """The real images: a set that is there, or downloads or drawn lesions to be prepared.

    Args:
        set: the folder of an image set; None where it is to be made.
        sources: downloads.
        phantoms: flags of the command `phantoms`, or None.
        options: flags of `prepare`.
        classes: of the labels; empty for those of the recipes.
        external: image sets that the classifiers are tested on as well, by their names.
    """

    set: Path | None
    sources: tuple[Path, ...]
    phantoms: Recipe | None
    options: Recipe
    classes: tuple[str, ...]
    external: Mapping[str, Path]


@dataclass(frozen=True)
class Generator:
    """What generates images.

    Args:
        recipe: of its training.
        prior: of the class images that it is trained with, or None.
        generate: of its images.
        count: of its images, of each class; None for the recipe's.
        shards: sets that they are made in.
        seeds: one generator is trained with each.
        variants: flags of `predict`, by the name of the images that are made with them.
        flags: of all three stages.
    """

    recipe: Recipe
    prior: Recipe | None
    generate: Recipe
    count: Any
    shards: int
    seeds: tuple[int, ...]
    variants: Mapping[str, Recipe]
    flags: Recipe


@dataclass(frozen=True)
class Arm:
    """What differs between classifiers.

    Args:
        name: of the arm.
        recipe: laid on the classifier's.
        mix: name of the mixing policy.
        images: names of the generated or adopted images that it takes; empty where it takes none.
        steps: optimizer steps, where they are not the classifier's.
    """

    name: str
    recipe: Recipe
    mix: str
    images: tuple[str, ...]
    steps: int | None

    @property
    def adds_generated(self) -> bool:
        """Whether it shows generated images."""
        return self.mix not in (REAL_ONLY, REPEATED)


@dataclass(frozen=True)
class Study:
    """A study as its file declares it."""

    file: Path
    data: Data
    generator: Generator | None
    adopted: Mapping[str, Path]
    foreign: tuple[str, ...]
    classifier: Recipe
    seeds: tuple[int, ...]
    steps: int | None
    arms: tuple[Arm, ...]
    comparison: Mapping[str, Any]

    def steps_of(self, arm: Arm) -> int | None:
        """An arm's optimizer steps; None for those of the classifier's recipe."""
        return arm.steps or self.steps

    def missing(self) -> list[str]:
        """The downloads and sets that are not there, which it can be planned without, a line each."""
        downloads = [
            mistake(
                self.file,
                "data.prepare",
                f"no such folder: {source}, from {Path.cwd()}. Name a download as it is unpacked.",
            )
            for source in self.data.sources
            if not source.is_dir()
        ]
        sets = [
            mistake(self.file, f"{key}.{name}", f"no image set {folder}: there is no {METADATA} in it. {how}")
            for key, given, how in (
                ("data.external", self.data.external, "Prepare it first."),
                ("adopted", self.adopted, "Make it first, with `adopt` or `predict`."),
            )
            for name, folder in given.items()
            if not is_set(folder)
        ]
        return [str(error) for error in (*downloads, *sets)]

    def check_adopted(self, real: Path) -> None:
        """Refuse adopted sets whose generator was fitted on other patients than those that are trained on here.

        Args:
            real: the real images, prepared.

        Raises:
            InputError: it names the set and both splits.
        """
        ours = train_split_sha256(read_set(real).records)
        for name, folder in self.adopted.items():
            if is_set(folder) and (others := fitted_on(folder) - {ours, ""}):
                raise mistake(
                    self.file,
                    f"adopted.{name}",
                    f"the generator of {folder} was fitted on another train split ({min(others)[:12]}) than that of "
                    f"{real} ({ours[:12]}), so it may have seen the patients that are tested on. Generate it again.",
                )


def read(file: Path) -> Study:
    """Read a study file.

    Raises:
        InputError: it is no study; the message names the file and the key.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such study file. Ready ones are in configs/studies/.")
    known = ("data", "generator", "adopted", "classifier", "arms", "comparison")
    root = Section(file, "", read_yaml(file), known, required=("data", "classifier", "arms"))
    data = _data(root.section("data", ("set", "prepare", "phantoms", "options", "classes", "external")))
    generator = None
    if "generator" in root:
        keys = ("recipe", "prior", "generate", "count", "shards", "seeds", "variants", "flags")
        generator = _generator(root.section("generator", keys, required=("recipe", "generate")))
    adopted = _sets(root, "adopted", "synthetic", data.classes)
    if generator and (twice := set(adopted) & set(generator.variants)):
        raise root.error(f"adopted.{twice.pop()}", "the generator's own images have this name. Choose another.")
    classifier = root.section("classifier", ("recipe", "seeds", "steps", "flags"), required=("recipe",))
    recipe = Recipe(_files(classifier, "recipe"), classifier.flags("flags"), classifier.path("flags"))
    arms = _arms(root, list(generator.variants) if generator else [], list(adopted))
    study = Study(
        file=file,
        data=data,
        generator=generator,
        adopted=adopted,
        foreign=foreign(adopted),
        classifier=recipe,
        seeds=classifier.seeds("seeds"),
        steps=classifier.number("steps"),
        arms=arms,
        comparison=_comparison(root, [arm.name for arm in arms]),
    )
    if data.set:
        study.check_adopted(data.set)
    return study


def _data(section: Section) -> Data:
    if "prepare" in section and not section.texts("prepare"):
        raise section.error("prepare", "name at least one download.")
    ways = [key for key in ("set", "prepare", "phantoms") if key in section]
    if len(ways) != 1:
        raise section.error("", "give one of set, prepare and phantoms: where the real images come from.")
    if ways == ["set"] and "options" in section:
        raise section.error("options", "they are of `prepare`, and the set is there already. Leave them out.")
    classes = section.texts("classes")
    if "classes" in section:
        try:
            lesions.label_by(classes)
        except InputError as error:
            raise section.error("classes", str(error).removeprefix("classes: ")) from error
    folder = section.given_path("set", section.text("set")) if "set" in section else None
    if folder:
        if not is_set(folder):
            raise section.error("set", f"no image set {folder}: there is no {METADATA} in it. Prepare it first.")
        with section.saying("set"):
            check_set(folder, "real", classes, ("train", "val", "test"))
    return Data(
        set=folder,
        sources=section.given_paths("prepare"),
        phantoms=_flags(section, "phantoms") if "phantoms" in section else None,
        options=_flags(section, "options"),
        classes=classes,
        external=_sets(section, "external", "real", classes, "test"),
    )


def _generator(section: Section) -> Generator:
    variants = section.section("variants")
    _check_names(section, "variants", variants.content)
    return Generator(
        recipe=_recipe(section, "recipe"),
        prior=_recipe(section, "prior") if "prior" in section else None,
        generate=_recipe(section, "generate"),
        count=section.content.get("count"),
        shards=section.number("shards") or 1,
        seeds=section.seeds("seeds"),
        variants={name: _flags(variants, name) for name in variants.content} or {GENERATED: Recipe()},
        flags=_flags(section, "flags"),
    )


def _arms(root: Section, generated: list[str], adopted: list[str]) -> tuple[Arm, ...]:
    declared = root.mapping("arms")
    if len(declared) < 2:
        raise root.error("arms", "name at least two, as a comparison needs.")
    _check_names(root, "arms", declared)
    return tuple(_arm(root, name, value, generated, adopted) for name, value in declared.items())


def _arm(root: Section, name: str, value: Any, generated: list[str], adopted: list[str]) -> Arm:
    # A file's name, or several, is short for a mapping with nothing else in it.
    content = value if isinstance(value, dict) else {"config": value}
    section = Section(root.file, f"arms.{name}", content, ("config", "steps", "images"), dotted=True)
    recipe = Recipe(_files(section, "config"), section.dotted_flags(), section.key)
    mix = _mix(recipe)
    if not mix:
        raise section.error(
            "", "no data.mix, which says what images it shows. Name a file such as configs/arms/real.yaml."
        )
    images = section.texts("images")
    if mix == REAL_ONLY:
        if images:
            raise section.error("images", "RealOnly shows no generated images. Leave it out, or choose another mix.")
        return Arm(name, recipe, mix, (), section.number("steps"))
    known = [*generated, *adopted]
    if unknown := [image for image in images if image not in known]:
        raise section.error("images", f"no images are called {unknown[0]}; there are {', '.join(known) or 'none'}.")
    images = images or tuple(generated or adopted)
    if not images:
        raise section.error("", f"{mix} takes generated images, and the study has neither generator nor adopted.")
    if len(images) > 1 and "images" not in section:
        raise section.error("", f"say which of the images {', '.join(images)} it takes, as `images: {images[0]}`.")
    return Arm(name, recipe, mix, images, section.number("steps"))


def _mix(recipe: Recipe) -> str:
    """The name of the mixing policy that a recipe's files and flags leave; blank if they name none."""
    data = recipe.content().get("data")
    arguments = data.get("init_args", data) if isinstance(data, dict) else {}
    mix = arguments.get("mix") if isinstance(arguments, dict) else None
    for flag in ("data.mix", "data.mix.class_path", "data.init_args.mix.class_path"):
        mix = recipe.flags.get(flag, mix)
    name = mix.get("class_path") if isinstance(mix, dict) else mix
    return name.rpartition(".")[2] if isinstance(name, str) else ""


def _comparison(root: Section, arms: list[str]) -> dict[str, Any]:
    section = root.section("comparison", ("baseline", "primary", "margin", "family"))
    told = dict(section.content)
    if "primary" in told and section.text("primary") not in OVERALL:
        raise section.error("primary", f"no metric {told['primary']}; there are {', '.join(OVERALL)}.")
    with section.saying("baseline"):
        baseline, _ = choose_baseline(arms, section.text("baseline") if "baseline" in told else None)
    if "margin" in told:
        told["margin"] = section.real("margin")
        with section.saying("margin"):
            check_margin(told["margin"])
    if "family" in told:
        told["family"] = list(section.texts("family"))
        with section.saying("family"):
            check_family(told["family"], arms, baseline)
    return told


def _sets(section: Section, key: str, origin: Origin, classes: Sequence[str], *splits: str) -> dict[str, Path]:
    """Image sets by their names; those that are there are looked into."""
    named = section.section(key)
    _check_names(section, key, named.content)
    sets = {name: named.given_path(name, named.text(name)) for name in named.content}
    for name, folder in sets.items():
        if is_set(folder):
            with section.saying(f"{key}.{name}"):
                check_set(folder, origin, classes, splits)
    return sets


def _check_names(section: Section, key: str, names: Mapping[str, Any]) -> None:
    for name in names:
        if not _NAME.fullmatch(name) or _NUMBERED.fullmatch(name):
            raise section.error(
                f"{key}.{name}", "names are letters, digits, `_`, `.` and `-`, and do not end as in -seed0 or -gen0."
            )


def _recipe(section: Section, key: str) -> Recipe:
    """Files, or a mapping of files (`config`) and flags."""
    if not isinstance(section.content.get(key), dict):
        return Recipe(_files(section, key), key=section.path(key))
    known = ("config",)
    inner = Section(section.file, section.path(key), section.content[key], known, required=known, dotted=True)
    return Recipe(_files(inner, "config"), inner.dotted_flags(), inner.key)


def _flags(section: Section, key: str) -> Recipe:
    return Recipe((), section.flags(key), section.path(key))


def _files(section: Section, key: str) -> tuple[Path, ...]:
    files = section.given_paths(key)
    if key in section and not files:
        raise section.error(key, "name at least one configuration.")
    for file in files:
        if not file.is_file():
            raise section.error(key, f"no such configuration: {file}.")
    return files


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged

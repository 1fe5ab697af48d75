"""What a study file declares, checked whole before anything is made. No torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dermsynth.data.sets import manifest
from dermsynth.errors import InputError
from dermsynth.evaluation.choices import check_family, check_margin, choose_baseline
from dermsynth.evaluation.metrics import OVERALL
from dermsynth.run.yaml_files import line_of, read_yaml
from dermsynth.study.section import Section

#: Mixes that take no generated set; the second takes sets and shows none of their images.
REAL_ONLY, REPEATED = "RealOnly", "OversampledReal"
#: How the images of the study's own generator are called, if it makes them in one way.
GENERATED = "generated"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_NUMBERED = re.compile(r".*-(seed|gen)\d+")  # as runs' folders end
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Recipe:
    """Configuration files, one on another, and flags on top."""

    files: tuple[Path, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)

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
        phantoms: what the command `phantoms` is told, or None.
        options: what `prepare` is told.
        classes: of the labels; empty for those of the recipes.
        external: image sets that the classifiers are tested on as well, by their names.
    """

    set: Path | None
    sources: tuple[Path, ...]
    phantoms: Mapping[str, Any] | None
    options: Mapping[str, Any]
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
    variants: Mapping[str, Mapping[str, Any]]
    flags: Mapping[str, Any]


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
        """The downloads that are not there, which it can be planned without, a line each."""
        return [
            f"{self.file}, line {line_of(self.file, 'data.prepare')}: data.prepare: no such folder: {source}, from "
            f"{Path.cwd()}. Name a download as it is unpacked."
            for source in self.data.sources
            if not source.is_dir()
        ]

    def warnings(self) -> list[str]:
        """What the study will not be able to tell."""
        controlled = {self.steps_of(arm) for arm in self.arms if arm.mix == REPEATED}
        lacking = [arm.name for arm in self.arms if arm.adds_generated and self.steps_of(arm) not in controlled]
        if not lacking:
            return []
        return [
            f"{self.file}: arms: no arm repeats real images (OversampledReal, as configs/arms/repeated.yaml) for as "
            f"many steps as {', '.join(lacking)}: the comparison cannot tell generated images from more repetitions."
        ]


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
    adopted = _sets(root, "adopted")
    if generator and (twice := set(adopted) & set(generator.variants)):
        raise root.error(f"adopted.{twice.pop()}", "the generator's own images have this name. Choose another.")
    classifier = root.section("classifier", ("recipe", "seeds", "steps", "flags"), required=("recipe",))
    recipe = Recipe(_files(classifier, "recipe"), classifier.flags("flags"))
    arms = _arms(root, list(generator.variants) if generator else [], list(adopted))
    return Study(
        file=file,
        data=data,
        generator=generator,
        adopted=adopted,
        foreign=_foreign(root, data, adopted),
        classifier=recipe,
        seeds=classifier.seeds("seeds"),
        steps=classifier.number("steps"),
        arms=arms,
        comparison=_comparison(root, [arm.name for arm in arms]),
    )


def _data(section: Section) -> Data:
    ways = [key for key in ("set", "prepare", "phantoms") if key in section]
    if len(ways) != 1:
        raise section.error("", "give one of set, prepare and phantoms: where the real images come from.")
    if ways == ["set"] and "options" in section:
        raise section.error("options", "they are of `prepare`, and the set is there already. Leave them out.")
    folder = section.given_path("set", section.text("set")) if "set" in section else None
    if folder:
        _check_set(section, "set", folder)
    return Data(
        set=folder,
        sources=section.given_paths("prepare"),
        phantoms=section.flags("phantoms") if "phantoms" in section else None,
        options=section.flags("options"),
        classes=section.texts("classes"),
        external=_sets(section, "external"),
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
        variants={name: variants.flags(name) for name in variants.content} or {GENERATED: {}},
        flags=section.flags("flags"),
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
    recipe = Recipe(_files(section, "config"), section.dotted_flags())
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


def _foreign(root: Section, data: Data, adopted: Mapping[str, Path]) -> tuple[str, ...]:
    """Folder names of the adopted sets of which nobody knows what their generator was fitted on.

    One that says so goes through the leak rules like our own: it must be this study's train split.
    """
    ours = manifest.train_split_sha256(manifest.read(data.set).records) if data.set else None
    names = []
    for name, folder in adopted.items():
        known = {record.extra.get("train_split_sha256", "") for record in manifest.read(folder).records}
        split = next((value for value in sorted(known) if _SHA256.fullmatch(value)), None)
        if split and ours and split != ours:
            raise root.error(
                f"adopted.{name}",
                f"the generator of {folder} was fitted on another train split ({split[:12]}) than that of {data.set} "
                f"({ours[:12]}), so it may have seen the patients that are tested on. Generate it again.",
            )
        if not split:
            names.append(folder.resolve().name)
    return tuple(names)


def _sets(section: Section, key: str) -> dict[str, Path]:
    sets = {name: section.given_path(f"{key}.{name}", str(folder)) for name, folder in section.mapping(key).items()}
    _check_names(section, key, sets)
    for name, folder in sets.items():
        _check_set(section, f"{key}.{name}", folder)
    return sets


def _check_set(section: Section, key: str, folder: Path) -> None:
    if not (folder / manifest.METADATA).is_file():
        raise section.error(key, f"no image set {folder}: there is no {manifest.METADATA} in it. Prepare it first.")


def _check_names(section: Section, key: str, names: Mapping[str, Any]) -> None:
    for name in names:
        if not _NAME.fullmatch(name) or _NUMBERED.fullmatch(name):
            raise section.error(
                f"{key}.{name}", "names are letters, digits, `_`, `.` and `-`, and do not end as in -seed0 or -gen0."
            )


def _recipe(section: Section, key: str) -> Recipe:
    """Files, or a mapping of files (`config`) and flags."""
    if not isinstance(section.content.get(key), dict):
        return Recipe(_files(section, key))
    known = ("config",)
    inner = Section(section.file, section.path(key), section.content[key], known, required=known, dotted=True)
    return Recipe(_files(inner, "config"), inner.dotted_flags())


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

"""From a declaration to the commands that carry it out, in their order. Pure: nothing is read but the declaration."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dermsynth.run.config import leaves
from dermsynth.study.declaration import REPEATED, Arm, Generator, Recipe, Study
from dermsynth.study.section import mistake


@dataclass(frozen=True)
class Step:
    """One command.

    Args:
        name: of the step in messages, and of its log.
        words: the command and its arguments, as `python -m dermsynth` takes them.
        needs: names of the steps whose products it reads.
        makes: the file whose being there says that its product is complete.
        origins: the key of the study file that says it, by the name of the flag.
    """

    name: str
    words: tuple[str, ...]
    needs: tuple[str, ...]
    makes: Path
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command alone."""
        return self.words[0]


def plan(study: Study, out: Path) -> tuple[Step, ...]:
    """The steps of a study.

    Args:
        study: as declared.
        out: the folder that everything is made in.

    Raises:
        InputError: a flag contradicts what the study itself gives; the message names the file and the key.
    """
    return tuple(_Plan(study, out).steps())


class _Plan:
    def __init__(self, study: Study, out: Path) -> None:
        self.study, self.out = study, out
        self.real = study.data.set or out / "sets" / "real"
        self.classes = ["--data.classes", _text(list(study.data.classes))] if study.data.classes else []

    def steps(self) -> Iterator[Step]:
        yield from self._data()
        if self.study.generator:
            yield from self._generator(self.study.generator)
        runs = []
        for seed in self.study.seeds:
            for arm in self.study.arms:
                for generator in self._generators_of(arm):
                    run = _run_name(arm, generator, seed)
                    runs.append(run)
                    yield self._fit(run, arm, generator, seed)
                    yield from self._tests(run)
        # The arms in the order of the file, each with all its runs.
        order = [
            _run_name(arm, generator, seed)
            for arm in self.study.arms
            for generator in self._generators_of(arm)
            for seed in self.study.seeds
        ]
        yield self._compare("compare", "test", order, self.out / "runs", self.out / "comparison")
        for name in self.study.data.external:
            folder = self.out / "external" / name
            yield self._compare(f"compare on {name}", f"test on {name}", order, folder, folder / "comparison")

    def _data(self) -> Iterator[Step]:
        data, sources = self.study.data, list(self.study.data.sources)
        if data.set:
            return
        needs: tuple[str, ...] = ()
        if data.phantoms is not None:
            folder = self.out / "phantoms"
            yield self._step(
                "phantoms", ["phantoms"], ["--out", str(folder)], [data.phantoms], (), folder / "train.csv"
            )
            sources, needs = [folder], ("phantoms",)
        own, makes = ["--out", str(self.real)], self.real / "metadata.csv"
        yield self._step("prepare", ["prepare", *map(str, sources)], own, [data.options], needs, makes)

    def _generator(self, generator: Generator) -> Iterator[Step]:
        prior, synthetic = self.out / "sets" / "prior", list[str]()
        if generator.prior:
            recipes, makes = [generator.prior, generator.flags], prior / "metadata.csv"
            yield self._stage("prior", "predict", recipes, self.classes, (), makes, {"config": "generator.prior"})
            synthetic = ["--data.synthetic", _text([str(prior)])]
        for seed in generator.seeds:
            name = _generator_name(seed)
            own = ["--seed_everything", str(seed), "--data.real", str(self.real), *self.classes, *synthetic]
            needs = (*self._of_data(), *(["prior"] if generator.prior else []))
            recipes, makes = [generator.recipe, generator.flags], self.out / name / "finished"
            origins = {"config": "generator.recipe", "seed_everything": "generator.seeds"}
            yield self._stage(name, "fit", recipes, own, needs, makes, origins)
            for variant, flags in generator.variants.items():
                yield from self._generation(generator, variant, flags, seed)

    def _generation(self, generator: Generator, variant: str, flags: Recipe, seed: int) -> Iterator[Step]:
        """One step for each shard of one generator's images."""
        checkpoint = self.out / _generator_name(seed) / "checkpoints" / "last.ckpt"
        own = ["--seed_everything", str(seed), "--ckpt_path", str(checkpoint), *self.classes]
        if generator.count is not None:
            own += ["--data.count", _text(generator.count)]
        if "real" in ((generator.generate.content().get("data") or {}).get("init_args") or {}):
            own += ["--data.real", str(self.real)]
        if _shows_real_beside(generator.generate):
            own += ["--trainer.callbacks.beside", str(self.real)]
        needs = (*self._of_data(), _generator_name(seed))
        recipes = [generator.generate, generator.flags, flags]
        keys = {"config": "generate", "data.count": "count", "data.shard": "shards", "data.shards": "shards"}
        origins = {name: f"generator.{key}" for name, key in keys.items()}
        for shard, folder in enumerate(self._generated(variant, seed)):
            part = ["--data.shards", str(generator.shards), "--data.shard", str(shard)] if generator.shards > 1 else []
            makes = folder / "metadata.csv"
            yield self._stage(folder.name, "predict", recipes, [*own, *part], needs, makes, origins)

    def _fit(self, run: str, arm: Arm, generator: int | None, seed: int) -> Step:
        study, folder = self.study, self.out / "runs" / run
        own = ["--arm", arm.name, "--seed_everything", str(seed), "--data.real", str(self.real), *self.classes]
        needs = list(self._of_data())
        if arm.images:
            sets = []
            for name in arm.images:
                if name in study.adopted:
                    sets.append(study.adopted[name])
                    continue
                # What the control repeats depends on the number of images alone, so one generator's are enough.
                assert study.generator is not None
                made = self._generated(name, study.generator.seeds[0] if generator is None else generator)
                sets += made
                needs += [folder.name for folder in made]
            own += ["--data.synthetic", _text([str(path) for path in sets])]
            if foreign := [path.resolve().name for path in sets if path.resolve().name in study.foreign]:
                own += ["--data.allow_foreign", _text(foreign)]
        recipes = [study.classifier, arm.recipe]
        if steps := study.steps_of(arm):
            own += ["--trainer.max_steps", str(steps)]
            if _say_total_steps(recipes):
                own += ["--model.lr_scheduler.total_steps", str(steps)]
        of_steps = f"arms.{arm.name}.steps" if arm.steps else "classifier.steps"
        origins = {"config": "classifier.recipe", "seed_everything": "classifier.seeds", "trainer.max_steps": of_steps}
        return self._stage(f"fit {run}", "fit", recipes, own, needs, folder / "finished", origins)

    def _tests(self, run: str) -> Iterator[Step]:
        folder = self.out / "runs" / run
        words = ["test", "--config", str(folder / "fit.yaml"), "--ckpt_path", str(folder / "checkpoints" / "best.ckpt")]
        yield Step(f"test {run}", tuple(words), (f"fit {run}",), folder / "predictions.csv")
        for name, path in self.study.data.external.items():
            there = self.out / "external" / name / run
            # None of the arm's generated images: they are of other patients than this set's.
            sets = ["--data.real", str(path), "--data.allow_foreign", _text([path.resolve().name])]
            sets += ["--data.synthetic", "[]", "--run", str(there)]
            yield Step(f"test on {name} {run}", (*words, *sets), (f"fit {run}",), there / "predictions.csv")

    def _compare(self, name: str, tests: str, runs: Sequence[str], folder: Path, out: Path) -> Step:
        words = ["compare", *(str(folder / run) for run in runs), *_words(self.study.comparison), "--out", str(out)]
        return Step(name, tuple(words), tuple(f"{tests} {run}" for run in runs), out / "comparison.txt")

    def _stage(
        self,
        name: str,
        command: str,
        recipes: Sequence[Recipe],
        own: Sequence[str],
        needs: Sequence[str],
        makes: Path,
        origins: Mapping[str, str] = MappingProxyType({}),
    ) -> Step:
        """A stage of LightningCLI: the recipes' files before all else. For the arguments see `_step`."""
        files = [word for recipe in recipes for file in recipe.files for word in ("--config", str(file))]
        return self._step(name, [command, *files], ["--run", str(makes.parent), *own], recipes, needs, makes, origins)

    def _step(
        self,
        name: str,
        first: Sequence[str],
        own: Sequence[str],
        recipes: Sequence[Recipe],
        needs: Sequence[str],
        makes: Path,
        origins: Mapping[str, str] = MappingProxyType({}),
    ) -> Step:
        """A step whose flags come after what the study gives.

        Args:
            name: of the step.
            first: the command and what comes before all flags.
            own: flags that the study gives, each with its value; no other flag may name one of them.
            recipes: whose flags are laid on, each over those before.
            needs: names of steps.
            makes: the mark of its product.
            origins: the keys of the study file that say what `own` gives.
        """
        flags = {key: (value, f"{recipe.key}.{key}") for recipe in recipes for key, value in recipe.flags.items()}
        given = {word.removeprefix("--") for word in own if word.startswith("--")} | {"config"}
        for key, (value, origin) in flags.items():
            for leaf in map(_plain, leaves(value, key=key)):
                if any(f"{leaf}.".startswith(f"{flag}.") for flag in given):
                    raise mistake(self.study.file, origin, "the study itself gives it. Leave it out.")
        words = (*first, *own, *_words({key: value for key, (value, _) in flags.items()}))
        said = {"data.classes": "data.classes", **origins, **{key: origin for key, (_, origin) in flags.items()}}
        return Step(name, words, tuple(needs), makes, said)

    def _of_data(self) -> tuple[str, ...]:
        return () if self.study.data.set else ("prepare",)

    def _generated(self, name: str, seed: int) -> list[Path]:
        """The sets of one generator's images, made in one of its ways."""
        generator = self.study.generator
        assert generator is not None
        whole = f"synthetic-seed{seed}" if len(generator.variants) == 1 else f"synthetic-{name}-seed{seed}"
        names = [f"{whole}-shard{shard}" for shard in range(generator.shards)] if generator.shards > 1 else [whole]
        return [self.out / "sets" / name for name in names]

    def _generators_of(self, arm: Arm) -> tuple[int | None, ...]:
        """The seeds of the generators whose images its runs are shown, one run each."""
        generator = self.study.generator
        own = generator is not None and any(name in generator.variants for name in arm.images)
        return generator.seeds if generator and own and arm.mix != REPEATED else (None,)


def _words(flags: Mapping[str, Any]) -> list[str]:
    return [word for key, value in flags.items() for word in (f"--{key}", _text(value))]


def _text(value: Any) -> str:
    """A value as a flag takes it: a text as it is, all else as JSON, which is YAML."""
    if isinstance(value, list) and all(
        isinstance(item, str) and not set(item) & set(",:[]{}#&*!|>'\"%@` ") for item in value
    ):
        return f"[{', '.join(value)}]"  # as people write it
    return value if isinstance(value, str) else json.dumps(value)


def _run_name(arm: Arm, generator: int | None, seed: int) -> str:
    return f"{arm.name}-seed{seed}" if generator is None else f"{arm.name}-gen{generator}-seed{seed}"


def _generator_name(seed: int) -> str:
    return f"generator-seed{seed}"


def _plain(key: str) -> str:
    """A flag without what may be left out, and without the `+` that adds to a list."""
    return key.replace(".init_args", "").removesuffix("+")


def _say_total_steps(recipes: Sequence[Recipe]) -> bool:
    """Whether recipes say how long the schedule of the learning rate is, which follows the training if they do not."""
    said = leaves(Recipe(tuple(file for recipe in recipes for file in recipe.files)).content())
    return any(_plain(key) == "model.lr_scheduler.total_steps" and value is not None for key, value in said.items())


def _shows_real_beside(recipe: Recipe) -> bool:
    """Whether the last callback of a recipe shows real images beside the generated ones, and must be told which."""
    callbacks = (recipe.content().get("trainer") or {}).get("callbacks")
    last = callbacks[-1] if isinstance(callbacks, list) and callbacks else None
    return isinstance(last, dict) and "beside" in (last.get("init_args") or {})

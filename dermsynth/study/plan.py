"""From a declaration to the commands that carry it out, in their order. Pure: nothing is read but the declaration."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermsynth.study.declaration import REPEATED, Arm, Generator, Recipe, Study


@dataclass(frozen=True)
class Step:
    """One command.

    Args:
        name: of the step in messages, and of its log.
        words: the command and its arguments, as `python -m dermsynth` takes them.
        needs: names of the steps whose products it reads.
        makes: the file whose being there says that its product is complete.
    """

    name: str
    words: tuple[str, ...]
    needs: tuple[str, ...]
    makes: Path

    @property
    def command(self) -> str:
        """The command alone."""
        return self.words[0]


def plan(study: Study, out: Path) -> tuple[Step, ...]:
    """The steps of a study.

    Args:
        study: as declared.
        out: the folder that everything is made in.
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
            phantoms = self.out / "phantoms"
            words = ("phantoms", "--out", str(phantoms), *_words(data.phantoms))
            yield Step("phantoms", words, (), phantoms / "train.csv")
            sources, needs = [phantoms], ("phantoms",)
        words = ("prepare", *map(str, sources), "--out", str(self.real), *_words(data.options))
        yield Step("prepare", words, needs, self.real / "metadata.csv")

    def _generator(self, generator: Generator) -> Iterator[Step]:
        prior, synthetic = self.out / "sets" / "prior", list[str]()
        if generator.prior:
            words = _stage("predict", [generator.prior], prior, self.classes, generator.flags)
            yield Step("prior", words, (), prior / "metadata.csv")
            synthetic = ["--data.synthetic", _text([str(prior)])]
        for seed in generator.seeds:
            run = self.out / _generator_name(seed)
            own = ["--seed_everything", str(seed), "--data.real", str(self.real), *self.classes, *synthetic]
            words = _stage("fit", [generator.recipe], run, own, generator.flags)
            needs = (*self._of_data(), *(["prior"] if generator.prior else []))
            yield Step(_generator_name(seed), words, needs, run / "finished")
            for name, flags in generator.variants.items():
                yield from self._generation(generator, name, flags, seed)

    def _generation(self, generator: Generator, name: str, flags: Mapping[str, Any], seed: int) -> Iterator[Step]:
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
        for shard, folder in enumerate(self._generated(name, seed)):
            part = ["--data.shards", str(generator.shards), "--data.shard", str(shard)] if generator.shards > 1 else []
            words = _stage("predict", [generator.generate], folder, [*own, *part], {**generator.flags, **flags})
            yield Step(folder.name, words, needs, folder / "metadata.csv")

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
        if steps := study.steps_of(arm):
            own += ["--trainer.max_steps", str(steps)]
            if _has_schedule(study.classifier):
                own += ["--model.lr_scheduler.total_steps", str(steps)]
        recipes = [study.classifier, Recipe(arm.recipe.files)]
        words = _stage("fit", recipes, folder, own, arm.recipe.flags)
        return Step(f"fit {run}", words, tuple(needs), folder / "finished")

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


def _stage(
    command: str, recipes: Sequence[Recipe], run: Path, own: Sequence[str], flags: Mapping[str, Any]
) -> tuple[str, ...]:
    """A stage's words: files, then what the study gives, then flags, so that these have the last word."""
    files = [word for recipe in recipes for file in recipe.files for word in ("--config", str(file))]
    on_top = {key: value for recipe in recipes for key, value in recipe.flags.items()}
    return (command, *files, "--run", str(run), *own, *_words({**on_top, **flags}))


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


def _has_schedule(recipe: Recipe) -> bool:
    """Whether a recipe's learning rate follows a schedule of so many steps."""
    return "total_steps" in json.dumps(recipe.content().get("model", {}), default=str)


def _shows_real_beside(recipe: Recipe) -> bool:
    """Whether the last callback of a recipe shows real images beside the generated ones, and must be told which."""
    callbacks = (recipe.content().get("trainer") or {}).get("callbacks") or []
    return bool(callbacks) and "beside" in str(callbacks[-1])

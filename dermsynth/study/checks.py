"""Whether every step can do its part in the study, by its whole configuration, before anything is made."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from pydoc import locate
from typing import Any

from dermsynth.cli import tool, tool_arguments
from dermsynth.errors import InputError
from dermsynth.run.classes import DATA, MODELS, located, named
from dermsynth.study.artefacts import STAGES, configuration
from dermsynth.study.declaration import REPEATED, Study
from dermsynth.study.plan import Step
from dermsynth.study.section import mistake
from dermsynth.study.sets import is_set

_KEY = re.compile(r"(?:--)?([\w.]+)(?:: | )")  # that a message begins with

# Model and data of each part, of those that are this package's. One's own class is taken at its word.
_PARTS = {
    "generator": ("DreamBooth", "DreamBoothData"),
    "images": ("DreamBooth", "GenerationData"),
    "classifier": ("Classifier", "ClassificationData"),
}


def check(step: Step, file: Path) -> None:
    """Refuse a step that its command would refuse.

    Args:
        step: of the study.
        file: of the study.

    Raises:
        InputError: what its command would say, with the study file and the key that says it, or else the step.
    """
    try:
        _check(step)
    except InputError as error:
        raise _placed(step, file, str(error)) from error


def warnings(study: Study, steps: Sequence[Step]) -> list[str]:
    """What a study will not be able to tell."""
    length: dict[str, int] = {}
    for step in steps:
        if (arm := _flag(step, "--arm")) and arm not in length:
            length[arm] = configuration(step)["trainer"]["max_steps"]
    controlled = {length[arm.name] for arm in study.arms if arm.mix == REPEATED}
    lacking = [arm.name for arm in study.arms if arm.adds_generated and length[arm.name] not in controlled]
    if not lacking:
        return []
    return [
        f"{study.file}: arms: no arm repeats real images (OversampledReal, as configs/arms/repeated.yaml) for as "
        f"many steps as {', '.join(lacking)}: the comparison cannot tell generated images from more repetitions."
    ]


def checks_of(study: Study, steps: Sequence[Step]) -> dict[str, Callable[[], None]]:
    """What can only be checked once a step is done, by its name: adopted sets, when it is known who is trained on."""
    prepare = next((step for step in steps if step.command == "prepare"), None)
    return {prepare.name: lambda: study.check_adopted(prepare.makes.parent)} if prepare else {}


def _check(step: Step) -> None:
    if step.command not in STAGES:
        _check_tool(step)
    elif step.command != "test":  # of a configuration that the fit before it has yet to write
        from dermsynth.run.configuration import build_data  # torch and Lightning

        config = configuration(step)
        part = "images" if step.command == "predict" else "classifier" if _flag(step, "--arm") else "generator"
        _check_classes(part, config)
        _check_callbacks(part, config["trainer"])
        real = (config["data"].get("init_args") or {}).get("real")
        if part != "images" or real is None or is_set(Path(real)):  # of which a plan of images counts what is there
            build_data(config)


def _check_tool(step: Step) -> None:
    arguments = tool_arguments(tool(step.command), step.words)
    if step.command == "phantoms":
        from dermsynth.data.phantoms.patients import check_numbers as check_phantoms

        check_phantoms(**{name: value for name, value in arguments.items() if name != "out"})
    elif step.command == "prepare":
        from dermsynth.data.prepare.image_set import check_numbers

        check_numbers(arguments["size"], arguments["processes"], arguments["max_broken"])


def _check_classes(part: str, config: Mapping[str, Any]) -> None:
    for key, ours, expected in zip(("model", "data"), (MODELS, DATA), _PARTS[part], strict=True):
        name = named(config[key]["class_path"])
        if name in ours and name != expected:
            raise InputError(f"config: {key} is {name}, where a study's {part} takes {expected}. Name another recipe.")


def _check_callbacks(part: str, trainer: Mapping[str, Any]) -> None:
    """Refuse a stage that would not leave what the steps after it read."""
    if trainer["fast_dev_run"]:
        raise InputError("trainer.fast_dev_run: it leaves nothing that a study can continue from. Leave it out.")
    if trainer["enable_checkpointing"] is False:
        raise InputError("trainer.enable_checkpointing: without checkpoints a study cannot go on. Leave it out.")
    callbacks = list(_callbacks(trainer))
    if part == "images" and not any("ImageSetWriter" in kinds for kinds, _ in callbacks):
        raise InputError("trainer.callbacks: no ImageSetWriter, so no image set would be written. Add it.")
    if part != "classifier":
        return
    if not any("PredictionsWriter" in kinds for kinds, _ in callbacks):
        raise InputError("trainer.callbacks: no PredictionsWriter, so no predictions would be written. Add it.")
    keepers = [arguments for kinds, arguments in callbacks if "ModelCheckpoint" in kinds]
    if not any(
        (one.get("filename"), one.get("dirpath")) == ("best", None) and one.get("save_top_k") for one in keepers
    ):
        raise InputError(
            "trainer.callbacks: no ModelCheckpoint keeps checkpoints/best.ckpt, which a study tests. Leave "
            "ModelCheckpoint and `without` to the default, or give it `filename: best`."
        )


def _callbacks(trainer: Mapping[str, Any]) -> Iterator[tuple[set[str], Mapping[str, Any]]]:
    """Names of each callback's class and of those that it is derived from, and its arguments."""
    given = trainer["callbacks"] or []
    for callback in given if isinstance(given, list) else [given]:
        kind = locate(located(callback["class_path"]))
        if isinstance(kind, type):
            yield {base.__name__ for base in kind.__mro__}, callback.get("init_args") or {}


def _flag(step: Step, flag: str) -> str:
    """The value that a step's words give a flag; blank if they do not."""
    return next((value for word, value in pairwise(step.words) if word == flag), "")


def _placed(step: Step, file: Path, text: str) -> InputError:
    found = _KEY.match(text)
    # Mixes do not know that they are the data's.
    keys = (found[1], f"data.{found[1]}") if found else ()
    for name, origin in step.origins.items():
        if found and name.replace(".init_args", "").rstrip("+") in keys:
            return mistake(file, origin, text[found.end() :])
    return InputError(f"{file}: step `{step.name}`: {text}")

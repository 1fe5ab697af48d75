"""Whether a step's product is there, and of these settings and inputs, by what the product says itself."""

import functools
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from dermsynth import made_from
from dermsynth.cli import tool, tool_arguments
from dermsynth.data.sets.manifest import BEGUN
from dermsynth.errors import InputError
from dermsynth.run.yaml_files import read_yaml
from dermsynth.study.plan import Step

STAGES = ("fit", "test", "predict")


@dataclass(frozen=True)
class Product:
    """What was found of a step's product.

    Args:
        state: `done`; `begun`, and the command resumes it; `absent`; `other` for one of other settings or inputs,
            or of which nothing says what they were.
        why: of `other`, in words.
    """

    state: Literal["done", "begun", "absent", "other"]
    why: str = ""


def look(step: Step, elsewhere: bool = False) -> Product:
    """Find out what there is of a step's product, once what it needs is done.

    Args:
        step: of the study.
        elsewhere: another machine makes it, with processes of a number of its own.

    Raises:
        InputError: the step's words make no command.
    """
    folder, complete = step.makes.parent, step.makes.is_file()
    entry = made_from.read(folder).get(step.command)
    if step.command == "phantoms":  # which begins in an empty folder alone, or where it was broken off
        if not folder.is_dir() or not any(folder.iterdir()):
            return Product("absent")
        differences = made_from.changes(entry, _tool_entry(step))
    elif entry is None and (not complete or step.command in ("test", "compare")):
        # These two are killed before they say what they made, and do it again in place.
        return Product("absent")
    elif step.command not in STAGES:
        differences = made_from.changes(entry, _tool_entry(step))
    elif not complete and not _is_begun(step.command, folder):
        return Product("absent")  # nothing to resume, and nothing to keep
    else:
        file = folder / f"{step.command}.yaml"
        differences = [] if file.is_file() else [f"there is no {file.name} in it"]
        differences = (
            differences or _differences(step, file, elsewhere) or made_from.changes(entry, {"inputs": _inputs(step)})
        )
    if differences:
        return Product("other", "; ".join(differences[:3]))
    return Product("done" if complete else "begun")


def _is_begun(stage: str, folder: Path) -> bool:
    mark = {"fit": "checkpoints/last.ckpt", "predict": BEGUN}.get(stage)
    return mark is not None and (folder / mark).is_file()


def configuration(step: Step) -> dict[str, Any]:
    """What a stage's step would write as its configuration.

    Raises:
        InputError: a mistake in its words or in a file that they name.
    """
    files = [Path(word) for flag, word in pairwise(step.words) if flag in ("--config", "--ckpt_path")]
    return _configuration(step.words, tuple(made_from.content(file) for file in files))


@functools.cache
def _configuration(words: tuple[str, ...], files: tuple[str, ...]) -> dict[str, Any]:
    """The configuration that these words make of files, and of a checkpoint, of these contents."""
    from dermsynth.run.configuration import read_configuration  # torch and Lightning

    return read_configuration(words[0], words[1:])


def _differences(step: Step, file: Path, elsewhere: bool) -> list[str]:
    from dermsynth.run.folder import NOT_COMPARED, differences

    processes = ("devices", "num_nodes") if elsewhere else ()
    return differences(read_yaml(file), configuration(step), (*NOT_COMPARED, *processes))


def _inputs(step: Step) -> dict[str, str]:
    return made_from.stage_inputs(configuration(step))


def _tool_entry(step: Step) -> made_from.Entry:
    """What the tool's entry would say if it were called now."""
    arguments = tool_arguments(tool(step.command), step.words)
    if step.command == "compare":
        from dermsynth.evaluation.runs import inputs_of

        return {"settings": made_from.settings(arguments, ["runs"]), "inputs": inputs_of(arguments["runs"])}
    if step.command == "prepare":
        from dermsynth.data.prepare.image_set import origin_of

        return origin_of("prepare", made_from.settings(arguments, ["sources"]), arguments["sources"])[1]
    if step.command == "phantoms":
        return {"settings": made_from.settings(arguments)}
    raise InputError(f"{step.name}: no study runs `{step.command}`.")

"""The model's settings that `validate`, `test` and `predict` take from a checkpoint, and refuse where they differ.

What the weights are, as adapters or not, is the checkpoint's to say; a configuration need not repeat it.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from dermsynth.errors import InputError
from dermsynth.run.checkpoint_io import CONFIGURATION, configuration_of, read_checkpoint
from dermsynth.run.classes import located, named
from dermsynth.run.config import leaves
from dermsynth.run.config_checks import given_path
from dermsynth.run.yaml_files import read_yaml

_STAGES = ("validate", "test", "predict")
# Of each model what its weights depend on. All else, such as how images are sampled, is the configuration's to say.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "DreamBooth": ("base", "train_text_encoder", "lora", "objective"),
    "Autoencoder": ("base",),
    "Classifier": ("model", "image_size", "class_weights", "label_smoothing"),
}
# Where a pretrained model lies may differ: its weights are compared, or replaced, when the checkpoint is loaded.
_PLACES = ("base", "model")
_TO_COME = {"class_path": located("DreamBooth"), "init_args": {"base": "tiny"}}


def settings_of(words: Sequence[str], to_come: bool = False) -> dict[str, Any]:
    """What the checkpoint that a stage is given says of its model, as a configuration says it.

    Args:
        words: the stage and what is given to it.
        to_come: the checkpoint may have yet to be written; a generator's that is, is taken for one of the base `tiny`.

    Returns:
        Content for `model`; empty where no checkpoint is given, or it is of a model that is not this package's.

    Raises:
        InputError: the checkpoint cannot be read, or has a class where there is none to be.
    """
    stage = words[0] if words else ""
    checkpoint = _given(words, "ckpt_path") if stage in _STAGES else None
    if not checkpoint:
        return {}
    try:
        path = given_path(checkpoint)
    except ValueError as error:
        raise InputError(f"ckpt_path: {error}") from error
    if to_come and not path.exists():
        return _TO_COME if stage == "predict" else {}
    content = _read(path, trusted=str(_given(words, "weights_only")).lower() == "false")
    if CONFIGURATION not in content:
        return {}
    try:
        model = configuration_of(content)["model"]
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    names = _SETTINGS.get(named(model["class_path"]), ())
    said = {name: value for name, value in model.get("init_args", {}).items() if name in names}
    if foreign := [key for key in leaves(said) if key.rpartition(".")[2] == "class_path"]:  # a parser would import it
        raise InputError(f"{path}: its configuration names a class as model.{foreign[0]}, where none has a place.")
    return {"class_path": located(model["class_path"]), "init_args": said} if said else {}


def _read(path: Path, trusted: bool) -> dict[str, Any]:
    content: object = None
    if path.is_file():  # a pipe would be waited on forever
        # Without a look at the bytes of all weights, which may be gigabytes, and are looked at when they are loaded.
        with suppress(Exception):  # whatever unpickling raises
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if content is None and not trusted:
        content = read_checkpoint(path)  # which says what is wrong
    return content if isinstance(content, dict) else {}


def with_settings(words: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """The words, with a checkpoint's settings before all others, so that these have the last word."""
    first = ["--config", json.dumps({"model": settings})] if settings else []
    return [*words[:1], *first, *words[1:]]


def refuse_contradictions(settings: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Raise where a configuration says something else of a model than the checkpoint that is loaded into it.

    Args:
        settings: of the checkpoint.
        model: what all words make of it, as it was parsed.

    Raises:
        InputError: naming the key and both values.
    """
    if not settings or named(model["class_path"]) != named(settings["class_path"]):
        return  # of another model the checkpoint is refused when it is loaded
    for name, theirs in settings["init_args"].items():
        ours = json.loads(json.dumps(model["init_args"].get(name), default=str))  # tuples and paths as YAML has them
        if isinstance(theirs, dict) and isinstance(ours, dict):
            there, here = leaves(theirs, key=name), leaves(ours, key=name)
            differing = [(key, there.get(key), here.get(key)) for key in {**there, **here}]
        else:
            differing = [] if name in _PLACES and isinstance(ours, str) else [(name, theirs, ours)]
        for key, old, new in differing:
            if old != new:
                raise InputError(
                    f"model.{key}: the checkpoint was trained with {json.dumps(old)}, and {json.dumps(new)} is given. "
                    "Leave it out: what the checkpoint says is taken."
                )


def _given(words: Sequence[str], key: str) -> str | None:
    """What flags and files say of a key at the top, the last one as a text; None where they say nothing or null."""
    found: object = None
    for word, following in pairwise([*words, ""]):
        flag, equals, value = word.partition("=")
        value = value if equals else following
        if flag in ("-c", "--config") and (file := Path(value).expanduser()).is_file():
            found = read_yaml(file).get(key, found)
        elif flag == f"--{key}":
            found = None if value == "null" else value
    return None if found is None else str(found)

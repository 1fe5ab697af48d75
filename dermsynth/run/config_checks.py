"""What is refused in any command line or configuration, by its key and before anything is built."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import register_type

from dermsynth.errors import InputError
from dermsynth.run.yaml_files import parse_yaml, read_yaml

# The largest number of float32, in which everything is computed.
_LARGEST = 3.4028234663852886e38
# The largest whole number of a tensor, a counter of Lightning and a length.
_LARGEST_WHOLE = 2**63 - 1
_MOST_SEED = 2**32 - 1  # of numpy
# Strings that are paths; all other paths have the type Path.
_PATHS = ("ckpt_path", "base", "model", "dirpath", "save_dir")
# Trainer arguments that Lightning takes without a look: the least, whether -1 stands for no limit, and what it is.
_LEAST: dict[str, tuple[float, bool, str]] = {
    "max_steps": (1, True, "at least 1, or -1 for no limit"),
    "max_epochs": (1, True, "at least 1, or -1 for no limit"),
    "accumulate_grad_batches": (1, False, "at least 1"),
    "check_val_every_n_epoch": (1, False, "at least 1"),
    "val_check_interval": (1e-9, False, "above 0"),
    "limit_train_batches": (1e-9, False, "above 0"),
    "gradient_clip_val": (0, False, "at least 0; 0 does not clip"),
    "num_sanity_val_steps": (0, True, "at least 0, or -1 for all"),
    "log_every_n_steps": (0, False, "at least 0"),
}


def take_paths() -> None:
    """Let every parser read what has the type Path by `given_path`."""
    register_type(Path, str, given_path, type_check=isinstance)


def given_path(text: str | Path) -> Path:
    """A path as the user means it: a shell expands `~` neither after `=` nor in YAML.

    Raises:
        ValueError: it is empty, names a variable, or no file can have that name.
    """
    text = str(text)
    if not text.strip():
        raise ValueError("an empty path. Give a name, or . for the current folder.")
    if "$" in text:
        raise ValueError(f"{text}: variables are not filled in here. Write the path itself.")
    if "\0" in text or any(len(os.fsencode(part)) > 255 for part in Path(text).parts):
        raise ValueError(f"{text[:40]}…: no file can have such a name.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text}: there is no such user.") from error


def check_arguments(arguments: Sequence[str], files: Sequence[Path]) -> None:
    """Refuse files and values that a parser would choke on.

    Args:
        arguments: the command and all that was given to it.
        files: configuration files among them.

    Raises:
        InputError: naming the file, and the line where there is one, or the flag.
    """
    for file in files:
        content = read_yaml(file)
        if "config" in content:
            raise InputError(f"{file}: config: a file cannot name another. Give each as --config FILE.")
        _refuse_not_finite(content, "", f"{file}: ")
    flag = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        flag, value = (name, value) if argument.startswith("--") and equals else (flag, argument)
        if value.startswith(("[", "{", "&", "- ")):
            _refuse_not_finite(parse_yaml(value, flag), flag)
        flag = argument if argument.startswith("--") else flag


def _refuse_not_finite(content: Any, flag: str, where: str = "") -> None:
    """Raise for a number within a list or mapping, of which a parser would only say that it is none of its types."""
    for _, _, key, value in _leaves(content, flag):
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{where}{key}: {value} is no number that can be computed with. Give a finite one.")


def check_values(config: Namespace, arguments: Sequence[str] = ()) -> None:
    """Refuse numbers that no command can compute with, and make strings that are paths such as `given_path` does.

    Args:
        config: as parsed; paths in it are replaced.
        arguments: names of the keys that are given with `--`.

    Raises:
        InputError: naming the key.
    """
    for owner, name, key, value in list(_leaves(config, "")):
        shown = f"--{key}" if key in arguments else key
        if isinstance(value, float) and not abs(value) <= _LARGEST:
            raise InputError(f"{shown}: {value} is no number that can be computed with. Give a finite one.")
        if isinstance(value, int) and abs(value) > _LARGEST_WHOLE:
            raise InputError(f"{shown}: {value} is too large a whole number. Give a smaller one.")
        if name in _PATHS and isinstance(value, str):
            try:
                path = str(given_path(value)) if value.startswith("~") or "$" in value or not value else value
            except ValueError as error:
                raise InputError(f"{shown}: {error}") from error
            owner[name] = path


def check_training(config: Namespace) -> None:
    """Refuse what LightningCLI and its Trainer would take without a word, or with a traceback much later.

    Raises:
        InputError: naming the key.
    """
    seed = config.seed_everything
    if isinstance(seed, bool) or not 0 <= seed <= _MOST_SEED:
        raise InputError(f"seed_everything: {str(seed).lower()} must be a whole number from 0 to {_MOST_SEED}.")
    for name, (least, unlimited, expected) in _LEAST.items():
        value = config.trainer.get(name)
        if isinstance(value, int | float) and not value >= least and not (unlimited and value == -1):
            raise InputError(f"trainer.{name}: {value} must be {expected}.")
    if config.trainer.get("overfit_batches"):
        raise InputError(
            "trainer.overfit_batches: it takes the mix's place in choosing images. Give --trainer.limit_train_batches."
        )
    folder = next((folder for folder in (config.run, *config.run.parents) if folder.exists()), config.run)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--run {config.run}: {folder} is a file. Give a folder.")


def check_steps(config: Namespace) -> None:
    """Refuse a schedule that ends before the training: its last steps would be at the lowest rate, without a word."""
    total = config.get("model.init_args.lr_scheduler.init_args.total_steps")
    if total is not None and config.trainer.max_steps > total:
        raise InputError(
            f"trainer.max_steps: {config.trainer.max_steps} is more than model.lr_scheduler.total_steps, {total}. "
            "Give both as flags: a recipe's YAML anchor does not follow one."
        )
    trainer = config.trainer
    every, in_steps = trainer.val_check_interval, trainer.check_val_every_n_epoch is None
    validates = trainer.limit_val_batches != 0
    if in_steps and validates and isinstance(every, int) and 0 < trainer.max_steps < every:
        raise InputError(
            f"trainer.val_check_interval: {every} is more than trainer.max_steps, {trainer.max_steps}, so that nothing "
            "would be validated and no best checkpoint kept. Make it smaller."
        )


def check_static_graph(config: Namespace) -> None:
    """Refuse what ends in an internal error of torch: batches without a reduction of gradients are another graph."""
    accumulated = config.trainer.accumulate_grad_batches
    if config.get("trainer.strategy.init_args.static_graph") and accumulated > 1:
        raise InputError(
            f"trainer.accumulate_grad_batches: {accumulated} does not go with the strategy's static_graph. Add "
            "--trainer.strategy.static_graph false."
        )


def _leaves(value: Any, key: str) -> Iterator[tuple[Any, Any, str, Any]]:
    """Of each plain value: what holds it, its name there, its dotted key without jsonargparse's levels, itself."""
    if isinstance(value, Namespace):
        items: Any = list(vars(value).items())
    elif isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    elif is_dataclass(value):
        items = [(field.name, getattr(value, field.name)) for field in fields(value)]
    else:
        return
    for name, item in items:
        path = key if name in ("init_args", "dict_kwargs") else f"{key}.{name}".lstrip(".")
        yield value, name, path, item
        yield from _leaves(item, path)

"""Cases made from the keys and types that the parsers know: each key of each recipe and tool with values of no sense.

The parsers read signatures, so this does, too: a key that is added tomorrow is tried tomorrow. Values that have a
meaning after all stand in `tests.robustness.meant`, each with its reason.
"""

import collections.abc
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from callbacks.ema import EMA
from callbacks.image_set_writer import ImageSetWriter
from callbacks.sample_grid import SampleGrid
from dermsynth.classification.classifier import Classifier
from dermsynth.data.loading.generation import GenerationData
from dermsynth.data.loading.modules import ClassificationData, DreamBoothData
from dermsynth.data.mixing.policies import CountPerClass, FillUp, PerDraw, Ratio, RatioPerClass, SyntheticFirst
from dermsynth.diffusion.autoencoder import Autoencoder
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.lora import LoRA
from dermsynth.run.folder import LastCheckpoint
from dermsynth.run.schedules import WarmupCosine
from dermsynth.tools.adopt import adopt
from dermsynth.tools.compare import compare
from dermsynth.tools.export import export
from dermsynth.tools.init import init
from dermsynth.tools.phantoms import phantoms
from dermsynth.tools.prepare import prepare
from tests.robustness.case import Case
from tests.robustness.meant import expected

#: A type, in the order in which a key of several types is asked: values that are of no sense to it.
NONSENSE: dict[Any, tuple[str, ...]] = {
    dict: ("x", "[1]"),
    list: ("{a: .nan}", "[.nan]", "5"),
    Path: ("", "missing/folder", "file.txt", "fifo", "/dev/null/x", "a\0b", "x" * 300),
    float: (".nan", ".inf", "-1", "1e308", "x"),
    int: (".nan", "-1", "0", "1.5", "x", "99999999999999999999"),
    bool: ("2", ".nan"),
    typing.Literal: ("x", "7"),
    str: ("a\0b",),
}
#: What is linked to another key, or is Lightning's own object rather than a value.
NO_KEYS = {"seed", "params", "optimizer", "lr_scheduler", "kwargs", "mix", "logger", "callbacks", "plugins", "profiler"}
MIXED = "--data.synthetic=[generated] --data.allow_foreign=[generated] --data.mix=dermsynth.data.mixing.policies."

#: The command, where its key is put, and whose signature says which keys there are.
RECIPES: list[tuple[str, str, Callable[..., Any]]] = [
    ("fit --config vit.yaml", "--model.", Classifier),
    ("fit --config vit.yaml", "--model.optimizer.", torch.optim.AdamW),
    ("fit --config vit.yaml", "--model.lr_scheduler.", WarmupCosine),
    ("fit --config vit.yaml", "--data.", ClassificationData),
    *(
        (f"fit --config vit.yaml {MIXED}{policy.__name__} {needed}", "--data.mix.", policy)
        for policy, needed in {
            Ratio: "",
            RatioPerClass: "--data.mix.ratios=[.5,.5,.5]",
            CountPerClass: "--data.mix.count=1",
            FillUp: "",
            PerDraw: "",
            SyntheticFirst: "--data.mix.epochs=1",
        }.items()
    ),
    ("fit --config vit.yaml", "--trainer.", Trainer),
    ("fit --config vit.yaml --trainer.callbacks+=callbacks.ema.EMA", "--trainer.callbacks.", EMA),
    (
        "fit --config vit.yaml --trainer.callbacks+=dermsynth.run.folder.LastCheckpoint",
        "--trainer.callbacks.",
        LastCheckpoint,
    ),
    ("fit --config dreambooth.yaml", "--model.", DreamBooth),
    ("fit --config dreambooth.yaml --model.lora={}", "--model.lora.", LoRA),
    ("fit --config dreambooth.yaml", "--data.", DreamBoothData),
    (
        "fit --config dreambooth.yaml --trainer.callbacks+=callbacks.sample_grid.SampleGrid "
        "--trainer.callbacks.prompts=[x] --trainer.callbacks.every_n_steps=1",
        "--trainer.callbacks.",
        SampleGrid,
    ),
    ("fit --config autoencoder.yaml", "--model.", Autoencoder),
    ("predict --config generate.yaml", "--data.", GenerationData),
    ("predict --config generate.yaml", "--model.", DreamBooth),
    ("predict --config generate.yaml", "--trainer.callbacks.", ImageSetWriter),
]
#: The same of the tools.
TOOLS: list[tuple[str, Callable[..., Any]]] = [
    ("phantoms --out out --patients 1 --size 32", phantoms),
    ("prepare folders --out out --size 16 --processes 1", prepare),
    ("adopt folders --out out --size 16 --processes 1 --license CC0-1.0 --attribution x", adopt),
    ("init configs --out out", init),
    ("export vit-run/checkpoints/last.ckpt --out out", export),
    ("compare real-seed1 real-seed2 hybrid-seed1 hybrid-seed2 --out out", compare),
]
#: Of DreamBooth, what `predict` reads.
GENERATES = "sampling."


def cases() -> Iterator[Case]:
    """All of them."""
    for command, prefix, owner in RECIPES:
        for key, kind in keys(owner):
            if command.startswith("predict") and owner is DreamBooth and not key.startswith(GENERATES):
                continue
            yield from _of_key(f"{command} --run run", f"{prefix}{key}", kind)
    for command, tool in TOOLS:
        positional = next(iter(inspect.signature(tool).parameters))
        for key, kind in keys(tool):
            if key != positional or key == "out":
                yield from _of_key(command, f"--{key}", kind)


def keys(owner: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """The keys that a parser makes of a signature, groups of keys with a dot, and their types."""
    callee = owner.__init__ if isinstance(owner, type) else owner
    for name, parameter in inspect.signature(callee, eval_str=True).parameters.items():
        if name == "self" or (name in NO_KEYS and isinstance(owner, type)):
            continue
        kind = parameter.annotation
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from ((f"{name}.{inner}", its) for inner, its in keys(kind))
        else:
            yield name, kind


def _of_key(command: str, flag: str, kind: Any) -> Iterator[Case]:
    for value in _nonsense(kind):
        shown = f"{flag}={value}".replace("\0", "NUL").replace("x" * 300, "<300 letters>")
        yield Case(f"{command} {shown}", (*command.split(), f"{flag}={value}"), expected=expected(shown))


def _nonsense(kind: Any) -> list[str]:
    """What is of no sense to any of the types that a key may have, the first of which proposes."""
    lists = [NONSENSE[plain] for plain in NONSENSE if plain in set(_plain(kind))]
    return [value for value in lists[0] if all(value in others for others in lists[1:])] if lists else []


def _plain(kind: Any) -> Iterator[Any]:
    """The types in an annotation, by the names under which `NONSENSE` has them."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        for one in typing.get_args(kind):
            yield from _plain(one)
    elif origin is typing.Literal:
        yield typing.Literal
    elif origin in (list, tuple, collections.abc.Sequence):
        yield list
    elif (origin or kind) in NONSENSE:
        yield origin or kind

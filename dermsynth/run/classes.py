"""The classes that configurations name, known by their names alone: moving a file breaks nobody's configuration.

No torch, and none of the classes is imported before it is named.
"""

import importlib
import re
from collections.abc import Iterable
from typing import Any

MODELS = {
    "Classifier": "dermsynth.classification.classifier",
    "DreamBooth": "dermsynth.diffusion.dreambooth",
    "Autoencoder": "dermsynth.diffusion.autoencoder",
}
DATA = {
    "ClassificationData": "dermsynth.data.loading.modules",
    "DreamBoothData": "dermsynth.data.loading.modules",
    "GenerationData": "dermsynth.data.loading.generation",
}
MIXES = dict.fromkeys(
    (
        "RealOnly",
        "SyntheticOnly",
        "Ratio",
        "RatioPerClass",
        "CountPerClass",
        "FillUp",
        "PerDraw",
        "SyntheticFirst",
        "OversampledReal",
        "PriorPreservation",
    ),
    "dermsynth.data.mixing.policies",
)
CALLBACKS = {
    "ClassifierPictures": "callbacks.classifier_pictures",
    "ShownImages": "callbacks.shown_images",
    "EMA": "callbacks.ema",
    "ImageSetWriter": "callbacks.image_set_writer",
    "LastCheckpoint": "dermsynth.run.folder",
    "PredictionsWriter": "callbacks.predictions",
    "Preemption": "callbacks.preemption",
    "Reconstructions": "callbacks.reconstructions",
    "SampleGrid": "callbacks.sample_grid",
    "Throughput": "callbacks.throughput",
}
#: Name: the module in which the class lies today.
CLASSES = {**MODELS, **DATA, **MIXES, **CALLBACKS, "WarmupCosine": "dermsynth.run.schedules"}

# What classes were called in former versions, whose configurations still name them so.
_FORMER = {"Drawn": "ShownImages"}
_OURS = re.compile(r"(?:(?:dermsynth|callbacks)\.(?:\w+\.)*)?(\w+)")
_IN_YAML = re.compile(r"^([\s-]*class_path: )(\S+)$", re.MULTILINE)


def located(path: str) -> str:
    """Where a class lies today.

    Args:
        path: its name, or a dotted path, which may be one of a former version.

    Returns:
        The dotted path; the argument where the class is none of this package.
    """
    name = named(path)
    return f"{CLASSES[name]}.{name}" if name in CLASSES else path


def named(path: str) -> str:
    """The name alone of a class of this package; the argument where it is none."""
    found = _OURS.fullmatch(path)
    name = _FORMER.get(found[1], found[1]) if found else ""
    return name if name in CLASSES else path


def names_alone(text: str) -> str:
    """The YAML of a configuration, in which classes of this package are called by their names alone."""
    return _IN_YAML.sub(lambda line: line[1] + named(line[2]), text)


def take_names() -> None:
    """Let every parser find classes of this package by their names in YAML."""
    import yaml
    from jsonargparse import get_loader, set_loader

    load = get_loader("yaml")
    if not isinstance(load, _ByName):
        set_loader("yaml", _ByName(load), exceptions=(yaml.YAMLError,))


def import_named(words: Iterable[str]) -> None:
    """Import the classes that stand in flags by their names alone, which jsonargparse finds only then."""
    for name in {word.rpartition("=")[2] for word in words} & set(CLASSES):
        importlib.import_module(CLASSES[name])


class _ByName:
    """A loader of YAML that puts the whole path in the place of each class's name.

    Args:
        load: the loader whose result it changes.
    """

    def __init__(self, load: Any) -> None:
        self._load = load

    def __call__(self, text: str) -> Any:
        return _with_paths(self._load(text))


def _with_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: located(item) if key == "class_path" and isinstance(item, str) else _with_paths(item)
            for key, item in value.items()
        }
    return [_with_paths(item) for item in value] if isinstance(value, list) else value

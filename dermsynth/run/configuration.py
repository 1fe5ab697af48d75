"""The whole configuration of a stage, as the stage itself reads it; nothing is built and no folder is touched."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import dermsynth.run.lean  # noqa: F401

import yaml
from jsonargparse import ArgumentParser
from lightning import LightningDataModule

from dermsynth.run.checkpoint_settings import settings_of
from dermsynth.run.classes import import_named, take_names
from dermsynth.run.config_checks import check_static_graph, check_steps, take_paths
from dermsynth.run.failures import instantiating
from dermsynth.run.precision import resolve
from dermsynth.run.quiet import quieten
from dermsynth.run.training_cli import TrainingCLI

_readers: dict[str, "_Reader"] = {}


class _Reader(TrainingCLI):
    """Parses, and stops there."""

    def _settings(self, words: Sequence[str]) -> dict[str, Any]:
        return settings_of(words, to_come=True)

    def seed(self) -> None:
        pass

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def run_stage(self, stage: str) -> None:
        pass


def build_data(config: Mapping[str, Any]) -> LightningDataModule:
    """The data module of a configuration, which checks what it is told; no set is read.

    Args:
        config: of a stage, as `read_configuration` returns it.

    Raises:
        InputError: the data module, or its mix, refuses a value.
    """
    take_paths()
    take_names()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=LightningDataModule)
    parsed = parser.parse_string(yaml.safe_dump({"data": config["data"]}))
    with instantiating():
        data: LightningDataModule = parser.instantiate(parsed).data
    return data


def read_configuration(stage: str, words: Sequence[str]) -> dict[str, Any]:
    """What a stage would write into `<run>/<stage>.yaml`.

    Args:
        stage: fit, validate, test or predict.
        words: what is given to it.

    Raises:
        InputError: a mistake in them or in a file that they name.
    """
    quieten()
    take_paths()
    arguments = [stage, *words]
    import_named(arguments)
    with warnings.catch_warnings():
        # Lightning warns of words that are not the process's own.
        warnings.simplefilter("ignore")
        if stage not in _readers:  # to build a parser takes as long as to read a configuration with it
            _readers[stage] = _Reader(arguments)
        reader = _readers[stage]
        reader.parse_arguments(reader.parser, arguments)
    config = reader.config[stage]
    check_steps(config)
    check_static_graph(config)
    resolve(config, stage)
    resolved: dict[str, Any] = yaml.safe_load(reader.resolved(stage))
    return resolved

"""The whole configuration of a stage, as the stage itself reads it; nothing is built and no folder is touched."""

import warnings
from collections.abc import Sequence
from typing import Any

import yaml

from dermsynth.run.classes import import_named
from dermsynth.run.config_checks import check_static_graph, check_steps, take_paths
from dermsynth.run.precision import resolve
from dermsynth.run.quiet import quieten
from dermsynth.run.training_cli import TrainingCLI

_readers: dict[str, "_Reader"] = {}


class _Reader(TrainingCLI):
    """Parses, and stops there."""

    def _set_seed(self) -> None:
        pass

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


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

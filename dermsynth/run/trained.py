"""The trained model that a checkpoint holds, made again by what its run says of it."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dermsynth.contracts import Exportable
from dermsynth.errors import InputError
from dermsynth.run.checkpoint_facts import kind_of
from dermsynth.run.checkpoint_io import checked_configuration, configuration_of, read_checkpoint
from dermsynth.run.checkpoints import Reloadable
from dermsynth.run.classes import located
from dermsynth.run.config import RUN_FILE
from dermsynth.run.folder import MAY_DIFFER, NOT_COMPARED, differences
from dermsynth.run.yaml_files import read_yaml

# Of each kind of model: its class and the formats that it is exported in.
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "autoencoder": ("Autoencoder", ("diffusers",)),
    "dreambooth": ("DreamBooth", ("diffusers", "lora", "kohya")),
    "classifier": ("Classifier", ("transformers",)),
}


@dataclass(frozen=True)
class Trained:
    """A checkpoint with its run's configuration, before the model is built.

    Args:
        content: of the checkpoint.
        kind: of its model.
        config: of its run.
        said_in: the file that says it: the checkpoint, or a fit.yaml.
    """

    content: Mapping[str, Any]
    kind: str
    config: dict[str, Any]
    said_in: Path

    @classmethod
    def read(cls, checkpoint: Path) -> Self:
        """Read both: the configuration from the checkpoint, or if it says none from fit.yaml in its folder or above.

        Raises:
            InputError: the checkpoint is broken, not one of this project, or nothing says its configuration; or such a
                fit.yaml says something else than the checkpoint.
        """
        content = read_checkpoint(checkpoint)
        kind = kind_of(content)
        if kind not in _KINDS:
            raise InputError(f"{checkpoint}: not a checkpoint of a model of this project.")
        files = [folder / RUN_FILE for folder in (checkpoint.parent, checkpoint.parent.parent)]
        file = next((file for file in files if file.is_file()), None)
        beside = None if file is None else checked_configuration(read_yaml(file), str(file))
        try:
            config = configuration_of(content)
        except InputError as error:
            if file is not None and beside is not None:
                return cls(content, kind, beside, file)
            raise InputError(
                f"{checkpoint}: {error} Neither is there {files[0]} or {files[1]}; the run's fit.yaml is needed."
            ) from error
        if beside is not None and (changes := _changes(config, beside)):
            raise InputError(
                f"{checkpoint}: {file} is of another run ({changes[0]}). Move the checkpoint to its own run's folder, "
                "or to where no fit.yaml is."
            )
        return cls(content, kind, config, checkpoint)

    def format(self, asked: str | None) -> str:
        """The format to export in: what is asked for, or the first that the model has.

        Raises:
            InputError: it has none of that name.
        """
        formats = _KINDS[self.kind][1]
        if asked and asked not in formats:
            raise InputError(f"--format {asked}: a {self.kind} exports as {' or '.join(formats)}.")
        return asked or formats[0]

    def model(self, trust: bool) -> Exportable:
        """Build the model.

        Args:
            trust: also of a class that is none of dermsynth's, which runs that class's code.

        Raises:
            InputError: the configuration is not one of such a model, or the weights do not fit it.
        """
        path = located(self.config["model"]["class_path"])
        if path != located(_KINDS[self.kind][0]) and not trust:
            raise InputError(
                f"{self.said_in}: the model is a {path}, which is no {self.kind} of dermsynth. Building it runs its "
                "code: give --trust true only if you know where the run comes from."
            )
        try:
            model = _imported(path).of_configuration(self.config).take(dict(self.content))
        except InputError as error:
            raise InputError(f"{self.said_in}: {error}") from error
        if not isinstance(model, Exportable):
            raise InputError(f"{self.said_in}: a {path} has no method `export`, as each model of dermsynth has.")
        return model


def _changes(config: Mapping[str, Any], beside: Mapping[str, Any]) -> list[str]:
    """What of model and data differs, but for what may lie elsewhere; `there` is the file beside the checkpoint."""
    there, here = ({name: one[name] for name in ("model", "data")} for one in (beside, config))
    return differences(there, here, (*NOT_COMPARED, *MAY_DIFFER))


def _imported(path: str) -> type[Reloadable]:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise InputError(f"there is no class {path} ({error}).") from error
    if not (isinstance(found, type) and issubclass(found, Reloadable)):
        raise InputError(f"{path} is no model that can be made again from a checkpoint.")
    return found

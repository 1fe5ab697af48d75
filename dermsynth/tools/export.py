"""Turn a checkpoint into files that other software reads."""

import importlib
from pathlib import Path
from typing import Any, Literal

from dermsynth.errors import InputError
from dermsynth.files import new_folder
from dermsynth.run.classes import located
from dermsynth.run.config import RUN_FILE
from dermsynth.run.yaml_files import read_yaml

Format = Literal["diffusers", "lora", "kohya", "transformers"]

# Of each kind of model: its class and its formats.
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "autoencoder": ("Autoencoder", ("diffusers",)),
    "dreambooth": ("DreamBooth", ("diffusers", "lora", "kohya")),
    "classifier": ("Classifier", ("transformers",)),
}


def export(checkpoint: Path, out: Path, format: Format | None = None, trust: bool = False) -> None:
    """Write a trained model in the format of another library, with safetensors weights.

    Args:
        checkpoint: of a run. The run's fit.yaml, in its folder or the one above, says what the model is; where there
            is none, the checkpoint itself does.
        out: the new folder; must not exist.
        format: diffusers for a whole Stable Diffusion pipeline (adapters merged), lora for the adapters alone as
            diffusers reads them, kohya for the same as A1111 and ComfyUI do, transformers for a classifier; by default
            the first that the model has.
        trust: build a model of whatever class the run names, which runs that class's code. Without it, only classes of
            dermsynth are built.
    """
    from dermsynth.run.quiet import quieten, quieten_transformers

    quieten()
    quieten_transformers()
    from dermsynth.model_card import run_name, write_card
    from dermsynth.run.checkpoint_io import read_checkpoint
    from dermsynth.run.checkpoints import kind_of

    content = read_checkpoint(checkpoint)
    kind = kind_of(content)
    if kind not in _KINDS:
        raise InputError(f"{checkpoint}: not a checkpoint of a model of this project.")
    own_class, formats = _KINDS[kind]
    chosen = format or formats[0]
    if chosen not in formats:
        raise InputError(f"--format {chosen}: a {kind} exports as {' or '.join(formats)}.")
    config, said_in = _configuration(checkpoint, content)
    path = located(config["model"]["class_path"])
    if path != located(own_class) and not trust:
        raise InputError(
            f"{said_in}: the model is a {path}, which is no {kind} of dermsynth. Building it runs its code: give "
            "--trust true only if you know where the run comes from."
        )
    try:
        module = _imported(path).of_configuration(config).take(content)
    except InputError as error:
        raise InputError(f"{said_in}: {error}") from error
    with new_folder(out) as folder:
        module.export(folder, chosen)
        if chosen == "kohya":
            # Those programs show a LoRA by its file's name.
            (folder / "lora.safetensors").rename(folder / f"{run_name(checkpoint)}.safetensors")
        write_card(folder, checkpoint, chosen, config, module.provenance)
    print(f"{chosen}: {out}\nopen it with: {_OPENED[chosen].format(out=out)}")


# How what was written is opened.
_OPENED = {
    "diffusers": 'diffusers.StableDiffusionPipeline.from_pretrained("{out}"), or give it as --model.base {out}',
    "lora": 'load_lora_weights("{out}") of a diffusers pipeline of the same base',
    "kohya": "A1111 or ComfyUI: copy the .safetensors file of {out} to their folder of LoRA files",
    "transformers": 'transformers.AutoModelForImageClassification.from_pretrained("{out}")',
}


def _configuration(checkpoint: Path, content: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    """What the run's configuration says, and in which file."""
    from dermsynth.run.checkpoint_io import checked_configuration, configuration_of

    files = [folder / RUN_FILE for folder in (checkpoint.parent, checkpoint.parent.parent)]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        try:
            return configuration_of(content), checkpoint
        except InputError as error:
            raise InputError(
                f"{checkpoint}: {error} Neither is there {files[0]} or {files[1]}; the run's fit.yaml is needed."
            ) from error
    return checked_configuration(read_yaml(file), str(file)), file


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise InputError(f"there is no class {path} ({error}).") from error

"""Turn a checkpoint into files that other software reads."""

from pathlib import Path
from typing import Any, Literal

from dermsynth.errors import InputError
from dermsynth.files import new_folder
from dermsynth.run_config import RUN_FILE
from dermsynth.yaml_files import read_yaml

Format = Literal["diffusers", "lora", "kohya", "transformers"]

_FORMATS = {
    "autoencoder": ("diffusers",),
    "dreambooth": ("diffusers", "lora", "kohya"),
    "classifier": ("transformers",),
}


def export(checkpoint: Path, out: Path, format: Format | None = None) -> None:
    """Write a trained model in the format of another library, with safetensors weights.

    Args:
        checkpoint: of a run; the run's fit.yaml must lie in its folder or in the one above.
        out: the new folder; must not exist.
        format: diffusers for a whole Stable Diffusion pipeline (adapters merged), lora for the adapters alone as
            diffusers reads them, kohya for the same as A1111 and ComfyUI do, transformers for a classifier; by default
            the first that the model has.
    """
    from dermsynth.quiet import quieten, quieten_transformers

    quieten()
    quieten_transformers()
    from dermsynth.run_folder import read_checkpoint

    content = read_checkpoint(checkpoint)
    kind = content.get("dermsynth", {}).get("kind")
    if kind not in _FORMATS:
        raise InputError(f"{checkpoint}: not a checkpoint of a model of this project.")
    chosen = format or _FORMATS[kind][0]
    if chosen not in _FORMATS[kind]:
        raise InputError(f"--format {chosen}: a {kind} exports as {' or '.join(_FORMATS[kind])}.")
    module = _module_of_run(checkpoint)
    module.on_load_checkpoint(content)
    module.load_state_dict(content["state_dict"], strict=module.strict_loading)
    module.eval()
    with new_folder(out) as folder:
        module.export(folder, chosen)
    print(f"{chosen}: {out}")


def _module_of_run(checkpoint: Path) -> Any:
    """The untrained module that the run's configuration describes."""
    from lightning import LightningDataModule, LightningModule
    from lightning.pytorch.cli import LightningArgumentParser

    files = [folder / RUN_FILE for folder in (checkpoint.parent, checkpoint.parent.parent)]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise InputError(f"{checkpoint}: neither {files[0]} nor {files[1]} exists; the run's fit.yaml is needed.")
    config = read_yaml(file)
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    parser.link_arguments("data.init_args.classes", "model.init_args.classes")
    parsed = parser.parse_object({"model": config["model"], "data": config["data"]})
    parsed.pop("data")
    return parser.instantiate_classes(parsed).model

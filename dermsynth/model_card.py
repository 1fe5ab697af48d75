"""The model card of an export: where the weights come from, and what they may be used for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import dermsynth
from dermsynth import base_licenses
from dermsynth.diffusion.base_license import license_of_base
from dermsynth.provenance import Provenance

_USES = {
    "diffusers": (
        "diffusers",
        "text-to-image",
        'from diffusers import StableDiffusionPipeline\n\npipeline = StableDiffusionPipeline.from_pretrained("FOLDER")',
    ),
    "lora": ("diffusers", "text-to-image", 'pipeline.load_lora_weights("FOLDER")  # of a pipeline of the base'),
    "kohya": ("diffusers", "text-to-image", ""),
    "transformers": (
        "transformers",
        "image-classification",
        "from transformers import AutoImageProcessor, AutoModelForImageClassification\n\n"
        'model = AutoModelForImageClassification.from_pretrained("FOLDER")\n'
        'processor = AutoImageProcessor.from_pretrained("FOLDER")',
    ),
}
# How what was written is opened, in one line.
_OPENED = {
    "diffusers": 'diffusers.StableDiffusionPipeline.from_pretrained("{out}"), or give it as --model.base {out}',
    "lora": 'load_lora_weights("{out}") of a diffusers pipeline of the same base',
    "kohya": "A1111 or ComfyUI: copy the .safetensors file of {out} to their folder of LoRA files",
    "transformers": 'transformers.AutoModelForImageClassification.from_pretrained("{out}")',
}


def write_card(folder: Path, checkpoint: Path, format: str, config: Mapping[str, Any], provenance: Provenance) -> None:
    """Write `README.md` with the front matter that the Hugging Face hub reads.

    Args:
        folder: of the export.
        checkpoint: what was exported.
        format: as which.
        config: of the run.
        provenance: of the weights.
    """
    library, task, code = _USES[format]
    arguments = config["model"].get("init_args", {})
    base = arguments.get("base", arguments.get("model"))
    from_base = isinstance(base, str)
    front: dict[str, Any] = {"library_name": library, "pipeline_tag": task, "tags": ["dermoscopy", "dermsynth"]}
    if from_base and base.count("/") == 1 and not Path(base).exists():
        front["base_model"] = base  # a hub id
    license = license_of_base(base) if from_base and library == "diffusers" else None
    if license and license != base_licenses.UNKNOWN:
        front["base_license"] = license
        if base_licenses.restricts_use(license):
            front["license"] = license
    told = {
        "Base": base if from_base else "none; trained from random weights",
        "Classes": ", ".join(map(str, provenance.get("classes", []))),
        "Token": f"`{provenance['token']}`" if provenance.get("token") else "",
        "Licence of the training images": provenance.get("license", ""),
        "Attribution": provenance.get("attribution", ""),
        "Train split (SHA-256)": provenance.get("train_split_sha256", ""),
        "Made with": f"dermsynth {dermsynth.__version__}",
        "Command": f"`python -m dermsynth export {checkpoint.name} --format {format}`",
    }
    lines = [f"- {name}: {' '.join(str(value).split())}" for name, value in told.items() if value]
    use = f"\n```python\n{code}\n```\n" if code else ""
    (folder / "README.md").write_text(
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {run_name(checkpoint)}\n\n"
        + "\n".join(lines)
        + (f"\n\n{base_licenses.explain(license)}" if license else "")
        + f"\n{use}\nFor research. Not a medical device: it must not decide on patients.\n",
        encoding="utf-8",
    )


def opened_with(format: str, out: Path) -> str:
    """How an export is opened."""
    return _OPENED[format].format(out=out)


def run_name(checkpoint: Path) -> str:
    """What the run of a checkpoint is called, by its folder."""
    folder = checkpoint.absolute().parent
    return (folder.parent if folder.name == "checkpoints" else folder).name or "model"

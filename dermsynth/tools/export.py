"""Turn a checkpoint into files that other software reads."""

from pathlib import Path
from typing import Any, Literal

from dermsynth.errors import InputError

Format = Literal["diffusers", "lora", "transformers"]


def export(checkpoint: Path, out: Path, format: Format = "diffusers") -> None:
    """Write a trained model in the format of another library, with safetensors weights.

    Args:
        checkpoint: a checkpoint of this project; the run's fit.yaml must lie in its folder or the one above.
        out: the new folder; must not exist.
        format: `diffusers` for a whole Stable Diffusion pipeline (adapters merged), `lora` for the adapters alone,
            `transformers` for a classifier.
    """
    import torch

    from dermsynth.training import module_of_run

    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: no such checkpoint.")
    content: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    kind = content.get("dermsynth", {}).get("kind")
    if kind is None:
        raise InputError(f"{checkpoint}: not a checkpoint of this project.")
    allowed = {"autoencoder": ["diffusers"], "dreambooth": ["diffusers", "lora"], "classifier": ["transformers"]}
    if format not in allowed[kind]:
        raise InputError(f"--format {format}: {checkpoint} is of a {kind}, which exports as {', '.join(allowed[kind])}.")
    module: Any = module_of_run(checkpoint)
    module.on_load_checkpoint(content)
    module.load_state_dict(content["state_dict"], strict=module.strict_loading)
    module.eval()
    module.export(out, format)
    print(f"{format}: {out}")

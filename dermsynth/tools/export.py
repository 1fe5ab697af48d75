"""Turn a checkpoint into files that other software reads."""

from pathlib import Path
from typing import Literal

from dermsynth.files import new_folder

Format = Literal["diffusers", "lora", "kohya", "transformers"]


def export(checkpoint: Path, out: Path, format: Format | None = None, trust: bool = False) -> None:
    """Write a trained model in the format of another library, with safetensors weights.

    Args:
        checkpoint: of a run. It says what the model is; of one that does not, the run's fit.yaml in its folder or the
            one above does.
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
    from dermsynth.model_card import opened_with, run_name, write_card
    from dermsynth.run.trained import Trained

    trained = Trained.read(checkpoint)
    chosen = trained.format(format)
    model = trained.model(trust)
    with new_folder(out) as folder:
        model.export(folder, chosen, run_name(checkpoint))
        write_card(folder, checkpoint, chosen, trained.config, model.provenance)
    print(f"{chosen}: {out}\nopen it with: {opened_with(chosen, out)}")

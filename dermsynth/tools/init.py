"""Make an untrained pipeline from configuration files."""

import shlex
from pathlib import Path


def init(configs: Path, out: Path, seed: int = 0) -> None:
    """Build a Stable Diffusion pipeline with random weights, to be trained from scratch.

    Args:
        configs: folder with the configuration of each part, such as configs/tiny/stable-diffusion.
        out: folder of the new pipeline; must not exist.
        seed: of the random weights.
    """
    from dermsynth.run.quiet import quieten, quieten_transformers

    quieten()
    quieten_transformers()
    from dermsynth import lesions
    from dermsynth.diffusion.parts import build_parts, save_pipeline
    from dermsynth.errors import InputError
    from dermsynth.files import new_folder

    if seed < 0:
        raise InputError(f"--seed {seed}: expected 0 or more.")
    names = [*lesions.DIAGNOSES, *lesions.MALIGNANCY_CLASSES]
    texts = [f"a dermoscopic image of {lesions.phrase(name)}" for name in names]
    parts = build_parts(configs, texts, seed)
    with new_folder(out) as folder:
        save_pipeline(parts, folder, provenance={"base": str(configs), "seed": seed})
    for name in ("unet", "vae", "text_encoder"):
        count = sum(parameter.numel() for parameter in getattr(parts, name).parameters())
        print(f"{name:14}{count:>14,} parameters")
    print(f"untrained pipeline: {out}")
    print(
        f"next: python -m dermsynth fit --config configs/tiny/autoencoder.yaml --model.base {shlex.quote(str(out))} "
        "--data.real SET --run runs/autoencoder"
    )

"""Turn a trained pipeline into a packaged base: `python -m dermsynth.bases.pack PIPELINE SET OUT`.

Weights are rounded to half precision. In place of the hash of its train split the base lists the images of it, so that
it serves other data, too, and is refused where one of them is held out (`parts.refuse_foreign_weights`).
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from dermsynth.data.sets import manifest
from dermsynth.diffusion.bases import PARTS_WITH_WEIGHTS
from dermsynth.diffusion.parts import PROVENANCE
from dermsynth.files import new_folder


def pack(pipeline: Path, image_set: Path, out: Path) -> None:
    """Write the packaged base.

    Args:
        pipeline: folder that `export` wrote.
        image_set: the set that all of it was trained on.
        out: the new folder; must not exist.

    Raises:
        InputError: a set cannot be read, or the folder exists.
    """
    train = manifest.read(image_set).split("train")
    with new_folder(out) as folder:
        shutil.copytree(pipeline, folder, dirs_exist_ok=True)
        for part in PARTS_WITH_WEIGHTS:
            (file,) = (folder / part).glob("*.safetensors")
            weights = {name: tensor.to(torch.float16) for name, tensor in load_file(file).items()}
            save_file(weights, file, metadata={"format": "pt"})
        provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        del provenance["train_split_sha256"]
        provenance["train_images"] = sorted(record.image_id for record in train)
        (folder / PROVENANCE).write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("pipeline", "image_set", "out"):
        parser.add_argument(name, type=Path)
    pack(**vars(parser.parse_args()))

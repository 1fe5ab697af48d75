"""`reconstruct`: the real train images as a generator's autoencoder gives them back, as a synthetic set."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import dermsynth
from dermsynth import made_from
from dermsynth.data.prepare.image_set import command
from dermsynth.data.sets import manifest
from dermsynth.data.sets.generated_mark import generated_notes
from dermsynth.data.sets.images import read_rgb, write_png
from dermsynth.data.sets.manifest import ImageSet, sha256_file, train_split_sha256
from dermsynth.errors import InputError
from dermsynth.files import make_folder, new_folder

if TYPE_CHECKING:
    from dermsynth.diffusion.parts import Parts
    from dermsynth.provenance import Provenance

_ABOUT = "A photograph as an autoencoder gives it back; made by dermsynth, not for diagnosis."


def reconstruct(real: Path, base: str, out: Path) -> None:
    """Send the train images of a real set through the autoencoder of a generator, with nothing generated between.

    A classifier that sees these in place of generated images tells what the autoencoder alone costs: it loses as much
    fine structure in them. Prepare the set at the size at which images are generated.

    Args:
        real: image set whose train split is taken.
        base: whose autoencoder: a hub id, a folder, tiny, or a checkpoint of a DreamBooth or autoencoder run.
        out: folder of the new image set; must not exist.
    """
    told = made_from.settings(locals(), inputs=["real", "base"])
    images = manifest.read(real)
    records = images.split("train")
    if not records or any(record.origin != "real" for record in images.records):
        raise InputError(f"{real}: expected a set of real images, some of them in train.")
    from dermsynth.run.quiet import quieten, quieten_transformers

    quieten()
    quieten_transformers()
    import torch
    from tqdm import tqdm

    from dermsynth.diffusion.base_license import license_of_base
    from dermsynth.diffusion.reconstruction import reconstruct as through

    parts, known = _parts(base, images)
    vae = parts.vae.requires_grad_(False).eval().to("cuda" if torch.cuda.is_available() else "cpu")
    columns = {
        "base_model": known.get("base_model", _name(base)),
        "checkpoint_sha256": sha256_file(Path(base)) if Path(base).is_file() else "",
        "train_split_sha256": train_split_sha256(records),
    }
    inputs = {"real": made_from.content(real), "base": made_from.content(Path(base))}
    with new_folder(out) as folder:
        make_folder(folder / "images")
        made = []
        for record in tqdm(records, desc="reconstruct", unit="image", mininterval=1):
            image = through(vae, read_rgb(images.path(record), (record.width, record.height)))
            image_id = f"{record.image_id}_reconstructed"
            file_name = f"images/{image_id}.png"
            stored = write_png(folder / file_name, image, generated_notes(_ABOUT))
            made.append(
                replace(  # patient, lesion and group stay, as everything in it is theirs
                    record,
                    file_name=file_name,
                    image_id=image_id,
                    sha256=stored.sha256,
                    origin="synthetic",
                    image_manipulation="synthetic",
                    source=out.name,
                    extra={**record.extra, **columns, "reconstructed_from": record.image_id},
                )
            )
        info = {
            "command": command("reconstruct", [real], base=_name(base), out=out),
            "dermsynth": dermsynth.__version__,
            "base_license": license_of_base(parts.base),
            **columns,
        }
        manifest.write(folder, made, info)
        made_from.write(folder, "reconstruct", {"settings": told, "inputs": inputs})
    print(f"{len(made)} train images through the autoencoder of {base}: {out}")
    print(f'next: fit with --config configs/arms/synthetic_only.yaml --data.synthetic "[{out}]"')


def _parts(base: str, real: ImageSet) -> "tuple[Parts, Provenance]":
    """The generator and what is known of its weights, unless they may know images that are held out."""
    from dermsynth.diffusion.autoencoder import Autoencoder
    from dermsynth.diffusion.dreambooth import DreamBooth
    from dermsynth.diffusion.parts import load_parts, refuse_foreign_weights
    from dermsynth.run.trained import Trained

    if Path(base).is_file():
        model = Trained.read(Path(base)).model(trust=False)
        if not isinstance(model, Autoencoder | DreamBooth):
            raise InputError(f"--base {base}: its model has no autoencoder. Give a DreamBooth or autoencoder run's.")
        parts, known = model.parts, model.provenance
    else:
        parts = load_parts(base)
        known = parts.provenance
    held_out = [record.image_id for record in real.records if record.split in ("val", "test")]
    data: Provenance = {"train_split_sha256": train_split_sha256(real.records)}
    refuse_foreign_weights(f"--base: {base}", known, data, held_out)
    return parts, known


def _name(base: str) -> str:
    """A base as dataset.json names it: a path by its last part, as a set may be given away."""
    return Path(base).resolve().name if Path(base).exists() else base

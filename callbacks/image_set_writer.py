"""Generated images as an image set: PNG files, metadata.csv, dataset.json and a picture of them all."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed
from lightning import Callback, LightningModule, Trainer
from PIL import Image

import dermsynth
from dermsynth import lesions
from dermsynth.contracts import GeneratedBatch, Generator
from dermsynth.data.sets import manifest
from dermsynth.data.sets.generated_mark import generated_notes
from dermsynth.data.sets.images import write_png
from dermsynth.data.sets.manifest import IMAGE_GROUP, Record, sha256_file
from dermsynth.errors import InputError
from dermsynth.files import make_folder, whole_file
from dermsynth.grids import grid, name_rows
from dermsynth.run.checkpoint_io import seed_of
from dermsynth.run.config import RUN_FILE
from dermsynth.run.folder import last_checkpoint

# The mark of a set that is not finished, so that only images of predict are ever removed.
_BEGUN = ".begun-by-predict"


class ImageSetWriter(Callback):
    """Writes what `predict` generates into the run's folder, which becomes an image set.

    Args:
        grid_images: of each class on the picture `grid.png`, one row a class.
        beside: a real image set whose training images of the same class are shown in a row above each generated one.
    """

    def __init__(self, grid_images: int = 12, beside: Path | None = None) -> None:
        if grid_images < 1:
            raise InputError(f"ImageSetWriter.grid_images: {grid_images} must be at least 1.")
        self.grid_images, self.beside = grid_images, beside
        self._records: list[Record] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a finished set, a training's folder, and one with images that are not of a broken-off run."""
        self._out = Path(trainer.default_root_dir)
        if stage == "predict" and ((self._out / RUN_FILE).exists() or last_checkpoint(self._out).exists()):
            raise InputError(f"--run {self._out}: it holds a training run; give another folder.")
        if (self._out / manifest.METADATA).exists():
            raise InputError(f"--run {self._out}: it holds an image set already. Choose another folder or remove it.")
        if (self._out / "images").exists() and not (self._out / _BEGUN).exists():
            raise InputError(f"--run {self._out}: it holds images that predict did not make. Choose another folder.")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where the weights come from."""
        if not isinstance(pl_module, Generator):
            raise InputError(
                f"ImageSetWriter: a {type(pl_module).__name__} makes no images of prompts. Leave the callback out."
            )
        self._above = manifest.read(self.beside) if self.beside else None
        if trainer.is_global_zero:
            # A broken-off run's images may be of other weights or settings: all are made again.
            shutil.rmtree(self._out / "images", ignore_errors=True)
            make_folder(self._out / "images")
            (self._out / _BEGUN).touch()
        trainer.strategy.barrier()
        how = pl_module.sampling
        known = pl_module.provenance
        self._columns = {
            "negative_prompt": how.negative_prompt,
            "guidance_scale": f"{how.guidance_scale:g}",
            "steps": str(how.steps),
            "scheduler": how.scheduler,
            "base_model": known.get("base_model", pl_module.base),
            "checkpoint_sha256": sha256_file(Path(trainer.ckpt_path)) if trainer.ckpt_path else "",
            "train_split_sha256": known.get("train_split_sha256", ""),
        }
        self._license, self._attribution = known.get("license", ""), known.get("attribution", "")
        self._info = {
            "command": "predict",
            # Which of several generators it was: they differ in the seed that each was trained with.
            "generator_seed": seed_of(Path(trainer.ckpt_path)) if trainer.ckpt_path else None,
            "dermsynth": dermsynth.__version__,
            "sampling": dataclasses.asdict(how),
            **self._columns,
        }

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: GeneratedBatch,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the images of one batch."""
        rows = zip(
            outputs["index"].tolist(),
            outputs["seed"].tolist(),
            outputs["class_name"],
            outputs["prompt"],
            outputs["images"],
            strict=True,
        )
        for index, seed, class_name, prompt, image in rows:
            self._records.append(self._write(index, seed, class_name, prompt, image))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the ranks' rows; rank 0 writes the tables and the picture."""
        records = self._records
        if trainer.world_size > 1:
            gathered: list[list[Record]] = [[]] * trainer.world_size
            torch.distributed.all_gather_object(gathered, records)
            records = [record for part in gathered for record in part]
        if trainer.is_global_zero:
            records.sort(key=lambda record: record.image_id)
            self._picture(records)
            # Last of all: it marks the set as complete.
            manifest.write(self._out, records, self._info)
            (self._out / _BEGUN).unlink()
            print(f"\n{len(records)} images: {self._out}\npicture: {self._out / 'grid.png'}")
            print(f'next: give it to fit, as --data.synthetic "[{self._out}]"', flush=True)

    def _write(self, index: int, seed: int, class_name: str, prompt: str, image: np.ndarray) -> Record:
        image_id = f"{class_name}_{index:06d}"
        file_name = f"images/{image_id}.png"
        stored = write_png(self._out / file_name, image, generated_notes(f"Prompt: {prompt}"))
        diagnosis = lesions.DIAGNOSES.get(class_name)
        malignant = diagnosis.malignant if diagnosis else class_name == lesions.MALIGNANT
        return Record(
            file_name=file_name,
            image_id=image_id,
            sha256=stored.sha256,
            width=stored.width,
            height=stored.height,
            diagnosis=diagnosis.code if diagnosis else "",
            malignant=None if malignant is None else int(malignant),
            group=f"{IMAGE_GROUP}{image_id}",
            split="train",
            origin="synthetic",
            image_manipulation="synthetic",
            source=self._out.name,
            license=self._license,
            attribution=self._attribution,
            extra={"prompt": prompt, "seed": str(seed), **self._columns},
        )

    def _picture(self, records: list[Record]) -> None:
        """One row a class, in the order of the indices; with `beside`, the real ones above."""
        classes = dict.fromkeys(_class_of(r) for r in sorted(records, key=lambda r: r.image_id.rpartition("_")[2]))
        rows: list[tuple[str, list[Path]]] = []
        for name in classes:
            if above := self._above:
                label_by = lesions.label_by([name])
                real = [above.path(r) for r in above.split("train") if r.class_name(label_by) == name]
                rows.append((f"{name} real", real))
            made = [self._out / record.file_name for record in records if _class_of(record) == name]
            rows.append((f"{name} generated", made))
        rows = [(name, paths) for name, paths in rows if paths]
        columns = min([self.grid_images, *(len(paths) for _, paths in rows)])
        size = (records[0].width, records[0].height)
        images = [
            np.asarray(Image.open(path).convert("RGB").resize(size)) for _, paths in rows for path in paths[:columns]
        ]
        picture = name_rows(grid(images, columns), [name for name, _ in rows])
        with whole_file(self._out / "grid.png") as file:
            Image.fromarray(picture).save(file, format="PNG")


def _class_of(record: Record) -> str:
    return record.image_id.rpartition("_")[0]

"""Generated images as an image set: PNG files, metadata.csv, dataset.json and a picture of them all."""

import dataclasses
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image

import dermsynth
from dermsynth import lesions, made_from
from dermsynth.contracts import GeneratedBatch, Generator, PlannedData, PlannedImage
from dermsynth.data.sets import manifest
from dermsynth.data.sets.blank import blank_reason
from dermsynth.data.sets.generated_mark import generated_notes, seed_of_png
from dermsynth.data.sets.images import Stored, stored
from dermsynth.data.sets.manifest import BEGUN, IMAGE_GROUP, Record
from dermsynth.data.sets.unfinished import IMAGES, BackgroundWriter, Drawn, begin
from dermsynth.diffusion.base_license import license_of_base
from dermsynth.errors import InputError
from dermsynth.files import make_folder, whole_file
from dermsynth.grids import grid, name_rows
from dermsynth.run.checkpoint_io import seed_of
from dermsynth.run.checkpoints import datamodule_of
from dermsynth.run.config import RUN_FILE
from dermsynth.run.folder import last_checkpoint
from dermsynth.run.ranks import done_by, told_by_first
from dermsynth.seeds import Purpose, stream_seed


class ImageSetWriter(Callback):
    """Writes what `predict` generates into the run's folder, which becomes an image set.

    A folder in which the same images were begun is resumed.

    Args:
        grid_images: of each class on the picture `grid.png`, one row per class.
        beside: a real image set whose training images of the same class are shown in a row above each generated one.
        class_folders: put images of a class into `images/CLASS`, so that programs which take a folder per class, such
            as torchvision's ImageFolder and the datasets library's imagefolder, open `images`.
        redraws: how often an image that shows nothing, as it is of one colour or saturated, is generated again, each
            time from another seed; after that the run ends. With 0 such images are kept.
    """

    def __init__(
        self, grid_images: int = 12, beside: Path | None = None, class_folders: bool = False, redraws: int = 10
    ) -> None:
        if grid_images < 1:
            raise InputError(f"ImageSetWriter.grid_images: {grid_images} must be at least 1.")
        if redraws < 0:
            raise InputError(f"ImageSetWriter.redraws: {redraws} must be at least 0.")
        self.grid_images, self.beside, self.class_folders = grid_images, beside, class_folders
        self.redraws = redraws
        self._above: manifest.ImageSet | None = None
        self._mine: list[PlannedImage] = []
        # Of the images that were drawn again, by their indices: what they were drawn from.
        self._redrawn: dict[int, int] = {}
        self._writer = BackgroundWriter()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out which images are there; refuse a finished set, a training's folder, and images of anything else."""
        self._out = Path(trainer.default_root_dir)
        if stage == "predict" and ((self._out / RUN_FILE).exists() or last_checkpoint(self._out).exists()):
            raise InputError(f"--run {self._out}: it holds a training run; give another folder.")
        if (self._out / manifest.METADATA).exists():
            raise InputError(f"--run {self._out}: it holds an image set already. Choose another folder or remove it.")
        if stage != "predict":
            return
        if not isinstance(pl_module, Generator):
            raise InputError(
                f"ImageSetWriter: a {type(pl_module).__name__} makes no images of prompts. Leave the callback out."
            )
        data = datamodule_of(trainer)
        if not isinstance(data, PlannedData):
            raise InputError(
                "ImageSetWriter: data must be a GenerationData, which says what images the set is to hold."
            )
        self._above = manifest.read(self.beside) if self.beside else None
        there = told_by_first(lambda: begin(self._out, self._plan(trainer, pl_module, data)), trainer)
        self._mine = [image for batch in data.batches() for image in batch]
        for folder in {self._path(image).parent for image in self._mine}:
            make_folder(folder)
        if there:
            for image in self._mine:
                if kept := stored(self._path(image)):
                    self._writer.stored[image["index"]] = kept
                    if (seed := seed_of_png(self._path(image))) not in (None, image["seed"]):
                        self._redrawn[image["index"]] = seed
            if trainer.is_global_zero:
                print(f"{self._out}: {there:,} of {len(data.items):,} images are there; resumed", flush=True)
        data.made = frozenset(self._writer.stored)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where the weights come from."""
        assert isinstance(pl_module, Generator)
        how = self._sampling = pl_module.sampling
        known = pl_module.provenance
        scale = how.guidance_scale
        self._columns = {
            "negative_prompt": how.negative_prompt,
            "guidance_scale": f"{scale[0]:g} to {scale[1]:g}" if isinstance(scale, tuple) else f"{scale:g}",
            "steps": str(how.steps),
            "scheduler": how.scheduler,
            "base_model": known.get("base_model", pl_module.base),
            "checkpoint_sha256": made_from.content(Path(trainer.ckpt_path)) if trainer.ckpt_path else "",
            "train_split_sha256": known.get("train_split_sha256", ""),
        }
        self._license, self._attribution = known.get("license", ""), known.get("attribution", "")
        self._info = {
            "command": "predict",
            # Which of several generators it was: they differ in the seed that each was trained with.
            "generator_seed": seed_of(Path(trainer.ckpt_path)) if trainer.ckpt_path else None,
            "dermsynth": dermsynth.__version__,
            "base_license": license_of_base(pl_module.base),
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
        """Write those images of one batch that are not there."""
        rows = zip(
            outputs["index"].tolist(),
            outputs["seed"].tolist(),
            outputs["class_name"],
            outputs["prompt"],
            outputs["images"],
            strict=True,
        )
        assert isinstance(pl_module, Generator)
        drawn = []
        for index, seed, class_name, prompt, pixels in rows:
            if index in self._writer.stored:
                continue
            image: PlannedImage = {"index": index, "seed": seed, "class_name": class_name, "prompt": prompt}
            drawn_from, shown = self._not_blank(pl_module, image, pixels)
            about = f"Synthetic image generated by dermsynth; not a patient. Prompt: {prompt}"
            drawn.append(Drawn(index, self._path(image), shown, generated_notes(about, drawn_from)))
        self._writer.write(drawn)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the ranks' rows; rank 0 writes the tables and the picture."""
        done_by(range(trainer.world_size), self._writer.finish, trainer)
        made = self._writer.stored
        records = [self._record(image, made[image["index"]]) for image in self._mine if image["index"] in made]
        if trainer.world_size > 1:
            gathered: list[list[Record]] = [[]] * trainer.world_size
            torch.distributed.all_gather_object(gathered, records)
            records = [record for part in gathered for record in part]
        if trainer.is_global_zero:
            records.sort(key=lambda record: record.image_id)
            data = datamodule_of(trainer)
            assert isinstance(data, PlannedData)
            planned = {_id_of(image): str(image["seed"]) for image in data.items}
            redrawn = Counter(_class_of(r) for r in records if r.extra["seed"] != planned[r.image_id])
            self._info["redrawn"] = dict(sorted(redrawn.items()))
            self._picture(records)
            # Last of all: it marks the set as complete.
            manifest.write(self._out, records, self._info)
            (self._out / BEGUN).unlink()
            print(f"\n{len(records)} images: {self._out}\npicture: {self._out / 'grid.png'}")
            print(f'next: give it to fit, as --data.synthetic "[{self._out}]"', flush=True)

    def _not_blank(
        self, model: Generator, image: PlannedImage, pixels: NDArray[np.uint8]
    ) -> tuple[int, NDArray[np.uint8]]:
        """An image as it was drawn, or drawn again as often as it takes to show something; the seed comes first.

        It is drawn by itself, so that it is the same whatever else is in the batch.
        """
        seed, reason = image["seed"], blank_reason(pixels) if self.redraws else ""
        for attempt in range(1, self.redraws + 1):
            if not reason:
                break
            seed = stream_seed(image["seed"], Purpose.REDRAWN, attempt)
            pixels = model.sample([image["prompt"]], [seed])[0]
            reason = blank_reason(pixels)
            self._redrawn[image["index"]] = seed
        if reason:
            raise InputError(
                f"{self._path(image)}: {reason} in each of {self.redraws + 1} draws. Give a checkpoint that has not "
                "diverged, less guidance, or --trainer.callbacks.redraws 0 to keep such images."
            )
        return seed, pixels

    def _path(self, image: PlannedImage) -> Path:
        folder = self._out / IMAGES
        return (folder / image["class_name"] if self.class_folders else folder) / f"{_id_of(image)}.png"

    def _record(self, image: PlannedImage, stored: Stored) -> Record:
        image_id, class_name = _id_of(image), image["class_name"]
        seed = self._redrawn.get(image["index"], image["seed"])
        diagnosis = lesions.DIAGNOSES.get(class_name)
        malignant = diagnosis.malignant if diagnosis else class_name == lesions.MALIGNANT
        return Record(
            file_name=self._path(image).relative_to(self._out).as_posix(),
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
            extra={
                "prompt": image["prompt"],
                "seed": str(seed),
                **self._columns,
                "guidance_scale": f"{self._sampling.guidance(seed):g}",
            },
        )

    def _plan(self, trainer: Trainer, model: Generator, data: PlannedData) -> dict[str, Any]:
        """What decides every image of the set; neither batches nor the number of processes do."""
        return {
            "class_folders": self.class_folders,
            "redraws": self.redraws,
            "images": dict(Counter(image["class_name"] for image in data.items)),
            "seeds and prompts": hashlib.sha256(json.dumps(data.items).encode()).hexdigest(),
            **dataclasses.asdict(model.sampling),
            "base": made_from.content(Path(model.base)),
            "checkpoint": made_from.content(Path(trainer.ckpt_path)) if trainer.ckpt_path else None,
            "precision": trainer.precision,
            "device": trainer.strategy.root_device.type,
        }

    def _picture(self, records: list[Record]) -> None:
        """One row per class, in the order of the indices; with `beside`, the real ones above."""
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


def _id_of(image: PlannedImage) -> str:
    return f"{image['class_name']}_{image['index']:06d}"


def _class_of(record: Record) -> str:
    return record.image_id.rpartition("_")[0]

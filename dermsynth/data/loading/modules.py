"""The data modules of training and testing: a base that owns sets, leak checks, mix and loaders; thin leaves on it."""

import functools
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dermsynth.run.lean  # noqa: F401

import numpy as np
from lightning import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from dermsynth import lesions
from dermsynth.contracts import Batch, LatentModel
from dermsynth.data.loading.captions import CLASS_PROMPT, INSTANCE_PROMPT, Captions, Field, prompts_of, refuse_blank
from dermsynth.data.loading.latent_cache import ALL_VIEWS, UPRIGHT, LatentCache
from dermsynth.data.loading.lesion_images import LesionImages, Sample, Show, ShowPixels
from dermsynth.data.loading.pixel_cache import PixelCache
from dermsynth.data.loading.transforms import Augmentation, Transform
from dermsynth.data.loading.workers import leave_signals_to_the_trainer
from dermsynth.data.mixing.dealing import Cells, count_cells
from dermsynth.data.mixing.policies import RealOnly
from dermsynth.data.mixing.policy import Policy
from dermsynth.data.mixing.sampler import ResumableLoader, ShardSampler, TrainSampler
from dermsynth.data.prepare.splits import choose_fold
from dermsynth.data.sets import leaks, manifest
from dermsynth.data.sets.images import LARGEST_SIZE
from dermsynth.data.sets.manifest import Record
from dermsynth.errors import InputError
from dermsynth.provenance import Provenance
from dermsynth.run.ranks import done_by, rank_and_ranks
from dermsynth.run.seams import check_epochs_reach

_LONGEST_EPOCH = 100_000_000


class LesionData(LightningDataModule):
    """Real images, and generated ones mixed into their train split.

    Args:
        real: folder of the image set that is trained, validated and tested on.
        classes: `[benign, malignant]`, or diagnosis codes; an image's label is its class's place in this list, and
            images of other classes are left out.
        size: pixels of the square that the model sees.
        batch_size: images a process takes at once.
        synthetic: folders of generated sets.
        mix: which of the real and generated images an epoch shows.
        augmentation: of training images.
        allow_foreign: sets, by folder name, that you answer for: generated ones whose generator was fitted on another
            train split, or `real` itself as an external test set of other patients.
        seed: of order and augmentation.
        num_workers: loader processes; 0 loads in the training process.
        pixel_cache: folder for decoded images, on a fast disk of this machine; worth it where the set's images are
            larger than `size`. It takes 3 bytes a pixel, and can be deleted between runs.
        fold: of a set that was prepared with folds, the one to test on; the next one is validated on and the others
            are trained on. Without it the column `split` decides.
    """

    #: Class images of a base that was never fitted on patients may be mixed in.
    trains_a_generator = False

    def __init__(
        self,
        real: Path,
        classes: list[str],
        size: int,
        batch_size: int,
        synthetic: Sequence[Path] = (),
        mix: Policy | None = None,
        augmentation: Augmentation = "dihedral",
        allow_foreign: Sequence[str] = (),
        seed: int = 0,
        num_workers: int = 0,
        pixel_cache: Path | None = None,
        fold: int | None = None,
    ) -> None:
        super().__init__()
        self.label_by = lesions.label_by(classes)
        self.real, self.classes, self.size, self.batch_size = Path(real), classes, size, batch_size
        self.synthetic = [Path(folder) for folder in synthetic]
        self.mix = mix or RealOnly()
        for name, value, least, most in (("size", size, 8, LARGEST_SIZE), ("num_workers", num_workers, 0, 256)):
            if not least <= value <= most:
                raise InputError(f"data.{name}: {value} must be from {least} to {most}.")
        if batch_size < 1 or batch_size % self.mix.batch_multiple:
            raise InputError(
                f"data.batch_size: {batch_size} must be a positive multiple of {self.mix.batch_multiple} "
                f"for {type(self.mix).__name__}."
            )
        self.augmentation, self.allow_foreign = augmentation, allow_foreign
        #: Whether a model that was fitted on another train split may be tested on this one.
        self.external = self.real.name in allow_foreign
        self.seed, self.num_workers = seed, num_workers
        self.pixel_cache, self.fold = pixel_cache, fold

    def setup(self, stage: str) -> None:
        """Read the sets and check that nothing leaks between them."""
        real = manifest.read(self.real)
        if self.fold is not None:
            real = choose_fold(real, self.fold)
        synthetic = [manifest.read(folder) for folder in self.synthetic]
        # The search for copies reads every image: once, and not in each process.
        prior = self.trains_a_generator
        done_by([0], lambda: leaks.check(real, synthetic, self.allow_foreign, for_prior=prior), self.trainer)
        self.train_split_sha256 = manifest.train_split_sha256(real.records)
        train = real.split("train")
        #: What a model fitted on this says of its data, carried into its checkpoints and into what it generates.
        self.provenance: Provenance = {
            "train_split_sha256": self.train_split_sha256,
            "classes": list(self.classes),
            "license": "; ".join(sorted({r.license for r in train if r.license})),
            "attribution": "; ".join(sorted({r.attribution for r in train if r.attribution})),
        }
        #: Ids of the images, of whatever class, that no generator may have been fitted on.
        self.held_out = frozenset(r.image_id for name in ("val", "test") for r in real.split(name))
        self.samples = {name: self._samples(real, real.split(name)) for name in ("train", "val", "test")}
        self._generated_sets = [self._samples(generated, _not_excluded(generated)) for generated in synthetic]
        self.generated = [sample for generated in self._generated_sets for sample in generated]
        stages = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        for name in stages.get(stage, ()):
            if not self.samples[name]:
                raise InputError(f"{self.real}: no image of the classes {', '.join(self.classes)} in its {name} split.")
        if stage == "fit":
            self._labels = (_labels(self.samples["train"]), _labels(self.generated))
            cells = count_cells(*self._labels, len(self.classes))
            self._report(cells, len(train))
            self._expected = self.mix.expected(*cells)
            if not self._expected.sum() <= _LONGEST_EPOCH:
                raise InputError(
                    f"data.mix: an epoch would show {self._expected.sum():.3g} images, more than {_LONGEST_EPOCH:,}. "
                    "Ask for fewer generated images."
                )
            rank_zero_info(self.mix.describe(*cells))

    @property
    def class_counts(self) -> list[float]:
        """How often an epoch shows each class, on average, in the order of `classes`; of a schedule, its last phase."""
        return self._expected.sum(axis=0).tolist()

    @property
    def val_counts(self) -> list[int]:
        """Validation images of each class, in the order of `classes`."""
        return np.bincount(_labels(self.samples["val"]), minlength=len(self.classes)).tolist()

    def train_dataloader(self) -> DataLoader[Any]:
        """The mix, dealt to this rank."""
        length = round(self._expected.sum())
        sampler = TrainSampler(self._order, length, self.batch_size, *rank_and_ranks(self.trainer), seed=self.seed)
        parts = [self.samples["train"], *self._generated_sets]
        images = LesionImages(
            [sample for part in parts for sample in part],
            self._show(parts, self.augmentation),
            self.describe,
            held_out=False,
        )
        loader = ResumableLoader(images, batch_sampler=sampler, **self._loading())
        check_epochs_reach(loader)
        return loader

    def val_dataloader(self) -> DataLoader[Any]:
        """The real validation images, each once over all ranks."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """The real test images, each once over all ranks."""
        return self._eval_loader("test")

    def describe(self, sample: Sample, seed: int | None) -> dict[str, Any]:
        """What the leaf adds to a batch item.

        Args:
            sample: the image.
            seed: of its showing; None for one that is held out, whose description is always the same.
        """
        raise NotImplementedError

    def _show(self, parts: Sequence[Sequence[Sample]], augmentation: Augmentation) -> Show:
        """How the images of some sets are shown, numbered through."""
        samples = [sample for part in parts for sample in part]
        return ShowPixels(samples, Transform(self.size, augmentation), self._cache(parts))

    def _eval_loader(self, split: str) -> DataLoader[Any]:
        samples, (rank, ranks) = self.samples[split], rank_and_ranks(self.trainer)
        if len(samples) < ranks:  # a process without an image would let the others wait for it
            raise InputError(
                f"data.real: {self.real} has {len(samples)} images of the classes {', '.join(self.classes)} in its "
                f"{split} split, fewer than the {ranks} processes. Use fewer."
            )
        images = LesionImages(samples, self._show([samples], "none"), self.describe, held_out=True)
        sampler = ShardSampler(len(images), rank, ranks)
        return DataLoader(images, batch_size=self.batch_size, sampler=sampler, **self._loading())

    def _cache(self, parts: Sequence[Sequence[Sample]]) -> PixelCache | None:
        """The decoded images of these samples; one process of a machine makes them, the others wait."""
        if self.pixel_cache is None:
            return None
        images = [[(sample.path, sample.record) for sample in part] for part in parts]
        make = functools.partial(PixelCache, self.pixel_cache, images, self.size)
        trainer = self.trainer
        done_by(range(0, trainer.world_size, trainer.num_devices) if trainer else (), make, trainer)
        return make()

    def _order(self, epoch: int) -> np.ndarray:
        return self.mix.order(*self._labels, seed=self.seed, epoch=epoch)

    def _report(self, cells: Cells, train_images: int) -> None:
        """Say what is trained on, and refuse a class that is not there."""
        real, generated = cells
        shown = {name: int(real[n]) for n, name in enumerate(self.classes)}
        left_out = train_images - int(real.sum())
        missing = [name for n, name in enumerate(self.classes) if not real[n] + generated[n]]
        counts = ", ".join(f"{name} {count}" for name, count in shown.items())
        if missing:
            raise InputError(
                f"data.classes: no training image of {', '.join(missing)} in {self.real} ({counts}; {left_out} of "
                f"{train_images} images are of other classes or unknown). Choose other classes."
            )
        others = f"; {left_out} of {train_images} images of other classes left out" if left_out else ""
        rank_zero_info(f"train: {counts}{others}")

    def _samples(self, images: manifest.ImageSet, records: Sequence[Record]) -> list[Sample]:
        number = {name: index for index, name in enumerate(self.classes)}
        return [
            Sample(images.path(record), record, number[name])
            for record in records
            if (name := record.class_name(self.label_by)) in number
        ]

    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            # Forked, they have the data as it is; Python 3.14 would send them a copy of it all.
            "multiprocessing_context": "fork" if self.num_workers and sys.platform == "linux" else None,
            "worker_init_fn": leave_signals_to_the_trainer,
            "pin_memory": bool(self.trainer and self.trainer.strategy.root_device.type == "cuda"),
        }


class ClassificationData(LesionData):
    """Batches for the classifier: adds `group`, the patient or lesion that predictions are clustered by."""

    def describe(self, sample: Sample, seed: int | None) -> dict[str, Any]:
        """See `LesionData.describe`."""
        return {"group": sample.record.group}


class DreamBoothData(LesionData):
    """Batches for text-to-image training: adds `prompt` and `prior`.

    With `mix: PriorPreservation`, `synthetic` holds the class images that the untouched base
    made, and half of every batch is theirs.

    Args:
        token: the rare word that the instance prompt binds the data set's look to.
        instance_prompt: of real images; `{token}` and `{lesion}` are filled in. One for all classes, or some classes'
            own, and the default for the others.
        class_prompt: of class images, in the same way; `{lesion}` is filled in.
        metadata: what is added to real images' prompts, of `site`, `sex` and `age`, where metadata.csv says it:
            `, on the lower extremity, of a woman in her forties`. What is not known adds nothing.
        metadata_dropout: the probability that one of them is left out of a training image's prompt. Validation leaves
            out none.
        latent_cache: folder for what the frozen VAE and text encoder make of images and prompts, on a disk that all
            processes see. It is filled before the first step, shared by runs, and can be deleted between them.
            Training from it loads neither of the two; sample grids do. It takes 64 KB a view of an image at 512
            pixels; with augmentation `dihedral` there are eight, of the image's centre.
    """

    trains_a_generator = True

    def __init__(
        self,
        classes: list[str],
        token: str = "sks",
        instance_prompt: str | dict[str, str] = INSTANCE_PROMPT,
        class_prompt: str | dict[str, str] = CLASS_PROMPT,
        metadata: Sequence[Field] = (),
        metadata_dropout: float = 0.0,
        latent_cache: Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(classes=classes, **kwargs)
        if latent_cache is not None and self.augmentation == "standard":
            raise InputError(
                "data.latent_cache: it holds views, not every change of augmentation standard. Use dihedral."
            )
        if latent_cache is not None and self.pixel_cache is not None:
            raise InputError("data.pixel_cache: with data.latent_cache no pixels are read. Leave one of them out.")
        self.latent_cache = latent_cache
        refuse_blank(token)
        real = prompts_of(instance_prompt, INSTANCE_PROMPT, classes, token, "instance_prompt")
        prior = prompts_of(class_prompt, CLASS_PROMPT, classes, token, "class_prompt")
        #: Each class's, without metadata, which must not be cut, by the key that gives them.
        self.prompts = {"data.instance_prompt": sorted(real.values()), "data.class_prompt": sorted(prior.values())}
        self.captions = {"real": Captions(real, metadata, metadata_dropout), "synthetic": Captions(prior)}
        asked = prompts_of(instance_prompt, INSTANCE_PROMPT, classes, "", "instance_prompt")
        #: What a model learns the meaning of; blank if no prompt has it.
        self.token = token if asked != real else ""

    def setup(self, stage: str) -> None:
        """See `LesionData.setup`; a model's provenance also says which token it was taught."""
        super().setup(stage)
        self.provenance["token"] = self.token
        self._stage = stage
        self._filled: LatentCache | None = None
        #: Of every prompt there is, and the empty one, where they come from the cache.
        self._embeddings: dict[str, Tensor] = {}

    def describe(self, sample: Sample, seed: int | None) -> dict[str, Any]:
        """See `LesionData.describe`."""
        origin = sample.record.origin
        prompt = self.captions[origin].caption(sample.record, self.classes[sample.label], seed)
        described = {"prompt": prompt, "prior": origin == "synthetic"}
        return {**described, "prompt_embeds": self._embeddings[prompt]} if self._embeddings else described

    def _show(self, parts: Sequence[Sequence[Sample]], augmentation: Augmentation) -> Show:
        if self.latent_cache is None:
            return super()._show(parts, augmentation)
        records = [sample.record for part in parts for sample in part]
        return self._fill(self.latent_cache).moments_of(records, _views(augmentation))

    def _fill(self, folder: Path) -> LatentCache:
        """The cache with all that this stage needs."""
        # Filled when the first loader is made and not in setup: only then is the model on its device.
        if self._filled is None:
            model = self.trainer and self.trainer.lightning_module
            if self.trainer is None or not isinstance(model, LatentModel):
                raise InputError("data.latent_cache: this model has no frozen autoencoder. Leave it out.")
            training = [*self.samples["train"], *self.generated] if self._stage == "fit" else []
            held_out = self.samples["test" if self._stage == "test" else "val"]
            images = [(s.path, s.record, _views(self.augmentation)) for s in training]
            images += [(s.path, s.record, _views("none")) for s in held_out]
            cache = LatentCache(folder, self.size, model.encoders)
            prompts = self._prompts([*training, *held_out])
            cache.fill(images, prompts, self.trainer, self._showings() if training else math.inf)
            self._filled, self._embeddings = cache, cache.embeddings_of(prompts)
        return self._filled

    def _showings(self) -> float:
        """Training images of the whole run, over all processes."""
        trainer = self.trainer
        assert trainer is not None
        steps, epochs = (math.inf if most in (None, -1) else most for most in (trainer.max_steps, trainer.max_epochs))
        batch = self.batch_size * trainer.accumulate_grad_batches * trainer.world_size
        return min(steps * batch, epochs * round(self._expected.sum()))

    def _prompts(self, samples: Sequence[Sample]) -> list[str]:
        """Every prompt that these images may get, and the empty one, which a model may drop them for."""
        of_origin = {
            origin: [(s.record, self.classes[s.label]) for s in samples if s.record.origin == origin]
            for origin in self.captions
        }
        return [
            "",
            *sorted({text for name, some in of_origin.items() for text in self.captions[name].all_captions(some)}),
        ]

    def _loading(self) -> dict[str, Any]:
        if not self._embeddings:
            return super()._loading()
        return {**super()._loading(), "collate_fn": functools.partial(_collate, self._embeddings[""])}


def _views(augmentation: Augmentation) -> tuple[int, ...]:
    return UPRIGHT if augmentation == "none" else ALL_VIEWS


def _collate(empty: Tensor, items: list[Batch]) -> Batch:
    return {**default_collate(items), "empty_embeds": empty}


def _labels(samples: Sequence[Sample]) -> np.ndarray:
    return np.array([s.label for s in samples], dtype=np.int64)


def _not_excluded(generated: manifest.ImageSet) -> list[Record]:
    """The records of a generated set without those whose column `excluded` says why they are not to be shown."""
    kept = [record for record in generated.records if not record.extra.get(manifest.EXCLUDED)]
    if left_out := len(generated.records) - len(kept):
        rank_zero_info(f"{generated.root}: {left_out} images left out, as its column {manifest.EXCLUDED} says")
    return kept

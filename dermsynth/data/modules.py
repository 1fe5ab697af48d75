"""The LightningDataModules: one base that owns sets, leak checks, the mix and the loaders; thin leaves on it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dermsynth import lesions
from dermsynth.data import leaks, manifest
from dermsynth.data.dealing import Cells, count_cells
from dermsynth.data.images import read_rgb
from dermsynth.data.manifest import Record
from dermsynth.data.mixing import Policy, RealOnly
from dermsynth.data.pixel_cache import PixelCache
from dermsynth.data.sampler import Draw, ResumableLoader, ShardSampler, TrainSampler
from dermsynth.data.splits import choose_fold
from dermsynth.data.transforms import Augmentation, Transform
from dermsynth.errors import InputError


class Sample(NamedTuple):
    """One image that can be loaded: where it lies, what is known of it, its class."""

    path: Path
    record: Record
    label: int


class LesionImages(Dataset[dict[str, Any]]):
    """Samples as batch items; `describe` adds what a model needs beside pixels and label.

    Pixels come from `cache`, which holds the samples in the same order, or from the files if there is none.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Transform,
        describe: Callable[[Sample], dict[str, Any]],
        cache: PixelCache | None = None,
    ) -> None:
        self.samples, self.transform, self.describe, self.cache = samples, transform, describe, cache

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        sample = self.samples[draw.record]
        image = read_rgb(sample.path) if self.cache is None else self.cache[draw.record]
        pixels: Tensor = self.transform(image, draw.seed)
        return {
            "pixel_values": pixels,
            "label": sample.label,
            "synthetic": sample.record.origin == "synthetic",
            "image_id": sample.record.image_id,
            **self.describe(sample),
        }


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
        self._by_one(lambda: leaks.check(real, synthetic, self.allow_foreign, for_prior=self.trains_a_generator))
        self.train_split_sha256 = manifest.train_split_sha256(real.records)
        train = real.split("train")
        #: What a model fitted on this says of its data, carried into its checkpoints and into what it generates.
        self.provenance = {
            "train_split_sha256": self.train_split_sha256,
            "classes": list(self.classes),
            "license": "; ".join(sorted({r.license for r in train if r.license})),
            "attribution": "; ".join(sorted({r.attribution for r in train if r.attribution})),
        }
        self.samples = {name: self._samples(real, real.split(name)) for name in ("train", "val", "test")}
        self._generated_sets = [self._samples(generated, generated.records) for generated in synthetic]
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
            rank_zero_info(self.mix.describe(*cells))

    @property
    def class_counts(self) -> list[float]:
        """How often an epoch shows each class, on average, in the order of `classes`; of a schedule, its last phase."""
        return self._expected.sum(axis=0).tolist()

    def train_dataloader(self) -> DataLoader[Any]:
        """The mix, dealt to this rank."""
        length = round(self._expected.sum())
        sampler = TrainSampler(self._order, length, self.batch_size, *self._rank_and_ranks(), seed=self.seed)
        images = LesionImages(
            [*self.samples["train"], *self.generated],
            Transform(self.size, self.augmentation),
            self.describe,
            self._cache([self.samples["train"], *self._generated_sets]),
        )
        return ResumableLoader(images, batch_sampler=sampler, **self._loading())

    def val_dataloader(self) -> DataLoader[Any]:
        """The real validation images, each once over all ranks."""
        return self._eval_loader(self.samples["val"])

    def test_dataloader(self) -> DataLoader[Any]:
        """The real test images, each once over all ranks."""
        return self._eval_loader(self.samples["test"])

    def describe(self, sample: Sample) -> dict[str, Any]:
        """What the leaf adds to a batch item."""
        raise NotImplementedError

    def _eval_loader(self, samples: Sequence[Sample]) -> DataLoader[Any]:
        images = LesionImages(samples, Transform(self.size, "none"), self.describe, self._cache([samples]))
        sampler = ShardSampler(len(images), *self._rank_and_ranks())
        return DataLoader(images, batch_size=self.batch_size, sampler=sampler, **self._loading())

    def _cache(self, parts: Sequence[Sequence[Sample]]) -> PixelCache | None:
        """The decoded images of these samples; one process of a machine makes them, the others wait."""
        if self.pixel_cache is None:
            return None
        images = [[(sample.path, sample.record) for sample in part] for part in parts]
        make = functools.partial(PixelCache, self.pixel_cache, images, self.size)
        self._by_one(make, each_machine=True)
        return make()

    def _by_one(self, work: Callable[[], object], each_machine: bool = False) -> None:
        """Let one process do something that the others wait for; where it fails, all fail and none waits on.

        Args:
            work: what is done.
            each_machine: by one process of each machine, as its result lies there.
        """
        trainer = self.trainer
        if trainer is None:
            work()
            return
        workers = range(0, trainer.world_size, trainer.num_devices) if each_machine else range(1)
        failure: Exception | None = None
        message: str | None = None
        if trainer.global_rank in workers:
            try:
                work()
            except Exception as error:  # raised below, when the others know of it
                failure, known = error, isinstance(error, InputError)
                message = str(error) if known else f"process {trainer.global_rank} failed: {error!r}"
        for rank in workers:
            said = trainer.strategy.broadcast(message, rank)
            if said is not None:
                raise failure or InputError(said)

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
        rank_zero_info(f"train: {counts}; {left_out} of {train_images} images of other classes left out")

    def _samples(self, images: manifest.ImageSet, records: Sequence[Record]) -> list[Sample]:
        number = {name: index for index, name in enumerate(self.classes)}
        return [
            Sample(images.path(record), record, number[name])
            for record in records
            if (name := record.class_name(self.label_by)) in number
        ]

    def _rank_and_ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": bool(self.trainer and self.trainer.strategy.root_device.type == "cuda"),
        }


class ClassificationData(LesionData):
    """Batches for the classifier: adds `group`, the patient or lesion that predictions are clustered by."""

    def describe(self, sample: Sample) -> dict[str, Any]:
        """See `LesionData.describe`."""
        return {"group": sample.record.group}


class DreamBoothData(LesionData):
    """Batches for text-to-image training: adds `prompt` and `prior`.

    With `mix: dermsynth.data.mixing.PriorPreservation`, `synthetic` holds the class images that the untouched base
    made, and half of every batch is theirs.

    Args:
        token: the rare word that the instance prompt binds the data set's look to.
        instance_prompt: of real images; `{token}` and `{lesion}` are filled in.
        class_prompt: of class images; `{lesion}` is filled in.
    """

    trains_a_generator = True

    def __init__(
        self,
        classes: list[str],
        token: str = "sks",
        instance_prompt: str = "a dermoscopic image of {token} {lesion}",
        class_prompt: str = "a dermoscopic image of {lesion}",
        **kwargs: Any,
    ) -> None:
        super().__init__(classes=classes, **kwargs)
        self.token = token if "{token}" in instance_prompt else ""
        self.prompts = {
            "real": [fill_prompt(instance_prompt, name, token) for name in classes],
            "synthetic": [fill_prompt(class_prompt, name, token) for name in classes],
        }

    def setup(self, stage: str) -> None:
        """See `LesionData.setup`; a model's provenance also says which token it was taught."""
        super().setup(stage)
        self.provenance["token"] = self.token

    def describe(self, sample: Sample) -> dict[str, Any]:
        """See `LesionData.describe`."""
        origin = sample.record.origin
        return {"prompt": self.prompts[origin][sample.label], "prior": origin == "synthetic"}


class GenerationData(LightningDataModule):
    """What to generate: so many images of each class, each with its own seed.

    Args:
        classes: `[benign, malignant]` or diagnosis codes.
        count: images of each class, one number for all or one for each class.
        batch_size: images a process makes at once.
        prompt: `{token}` and `{lesion}` are filled in.
        token: the rare word that the model was taught; unused if the prompt does not ask for it.
        seed: of the run; with an image's global index it decides that image's noise.
        shard: which part to make, from 0: the images `shard`, `shard + shards`, … of all classes.
        shards: parts that the images are made in, each an image set of its own; `data.synthetic` takes them all.
    """

    def __init__(
        self,
        classes: list[str],
        count: int | dict[str, int],
        batch_size: int,
        prompt: str = "a dermoscopic image of {token} {lesion}",
        token: str = "sks",
        seed: int = 0,
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        super().__init__()
        lesions.label_by(classes)
        counts: Mapping[str, int] = count if isinstance(count, dict) else dict.fromkeys(classes, count)
        if set(counts) != set(classes) or min(counts.values()) < 0 or not sum(counts.values()):
            raise InputError(
                f"data.count: {count} must give each of the classes {', '.join(classes)} a number from 0, not all 0."
            )
        if batch_size < 1:
            raise InputError(f"data.batch_size: {batch_size} must be at least 1.")
        if not 0 <= shard < shards <= sum(counts.values()):
            raise InputError(
                f"data.shard: {shard} of {shards} shards and {sum(counts.values())} images. Shards are counted from 0, "
                "and each needs an image."
            )
        self.classes, self.batch_size = classes, batch_size
        #: What the model must have been taught for the prompts to mean anything.
        self.token = token if "{token}" in prompt else ""
        names = [name for name in classes for _ in range(counts[name])]
        self.items = [
            {
                "index": index,
                "seed": image_seed(seed, index),
                "class_name": name,
                "prompt": fill_prompt(prompt, name, token),
            }
            for index, name in enumerate(names)
        ][shard::shards]

    def predict_dataloader(self) -> DataLoader[Any]:
        """The images of this rank: every `world_size`-th of the shard."""
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if len(self.items) < ranks:  # a process without an image would let the others wait for it
            raise InputError(f"data.count: {len(self.items)} images are fewer than the {ranks} processes. Use fewer.")
        return DataLoader(self.items[rank::ranks], batch_size=self.batch_size)  # type: ignore[arg-type]


def image_seed(run_seed: int, index: int) -> int:
    """The seed of the generated image with this global index; a function of nothing else."""
    return int(np.random.SeedSequence((run_seed, index)).generate_state(1, np.uint64)[0] >> 1)


def fill_prompt(template: str, class_name: str, token: str) -> str:
    """The prompt of a class.

    Raises:
        InputError: the template has a field that is neither `{token}` nor `{lesion}`.
    """
    try:
        return template.format(token=token, lesion=lesions.phrase(class_name))
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(f"prompt {template!r}: only {{token}} and {{lesion}} can be filled in ({error}).") from error


def _labels(samples: Sequence[Sample]) -> np.ndarray:
    return np.array([s.label for s in samples], dtype=np.int64)

"""The data module of generation: which prompt and seed each image to be made has, and which process makes it."""

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import dermsynth.run.lean  # noqa: F401

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from dermsynth import lesions
from dermsynth.contracts import PlannedImage
from dermsynth.data.loading.captions import INSTANCE_PROMPT, Field, refuse_blank
from dermsynth.data.loading.generation_plan import ImagePrompts, Prompt, counts_of
from dermsynth.data.sets import manifest
from dermsynth.errors import InputError
from dermsynth.run.ranks import rank_and_ranks
from dermsynth.seeds import Purpose, stream_seed

_MOST_IMAGES = 1_000_000


class GenerationData(LightningDataModule):
    """What to generate: so many images of each class, each with its own seed.

    An image's noise and prompt follow from the run's seed and the image's index alone.

    Args:
        classes: `[benign, malignant]` or diagnosis codes.
        batch_size: images a process makes at once.
        count: images of each class, one number for all or one for each class.
        fill_to: in place of it, so many as bring each class's training images in `real` to this number.
        match: in place of it, so many for each training image in `real`, such as 1 or 0.5.
        prompt: `{token}` and `{lesion}` are filled in. One, or a list of `{text: …, weight: …}` of which each image
            draws one; for all classes, or some classes' own.
        token: the rare word that the model was taught; unused if the prompt does not ask for it.
        metadata: what is added to the prompt, some of `site`, `sex` and `age`, as it is known of a training image of
            the class that is drawn from `real`.
        real: the image set that the generator was fitted on.
        seed: of the run; with an image's global index it decides that image's noise.
        shard: which part to make, from 0: the images `shard`, `shard + shards`, … of all classes.
        shards: parts that the images are made in, each an image set of its own; `data.synthetic` takes them all.
    """

    def __init__(
        self,
        classes: list[str],
        batch_size: int,
        count: int | dict[str, int] | None = None,
        fill_to: int | None = None,
        match: float | None = None,
        prompt: Prompt | dict[str, Prompt] = INSTANCE_PROMPT,
        token: str = "sks",
        metadata: list[Field] | None = None,
        real: Path | None = None,
        seed: int = 0,
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        super().__init__()
        lesions.label_by(classes)
        known = manifest.read(real) if real else None
        counts = counts_of(classes, count, fill_to, match, known)
        given = "count" if count is not None else "fill_to" if fill_to is not None else "match"
        if sum(counts.values()) > _MOST_IMAGES:
            raise InputError(
                f"data.{given}: {sum(counts.values()):,} images are more than {_MOST_IMAGES:,}, one set's most."
            )
        if not 1 <= batch_size <= _MOST_IMAGES:
            raise InputError(f"data.batch_size: {batch_size} must be from 1 to {_MOST_IMAGES:,}.")
        if not 0 <= shard < shards <= sum(counts.values()):
            raise InputError(
                f"data.shard: {shard} of {shards} shards and {sum(counts.values())} images. Shards are counted from 0, "
                "and each needs an image."
            )
        self.classes, self.batch_size = classes, batch_size
        refuse_blank(token)
        prompts = ImagePrompts(prompt, classes, token, metadata, known)
        #: What the model must have been taught for the prompts to mean anything.
        self.token = token if prompts.texts != ImagePrompts(prompt, classes, "", metadata, known).texts else ""
        images: list[PlannedImage] = []
        names = [name for name in classes for _ in range(counts[name])]
        for index, name in enumerate(names):
            own = image_seed(seed, index)
            images.append({"index": index, "seed": own, "class_name": name, "prompt": prompts.of(name, own)})
        #: Those of all images, which must not be cut, by the key that gives them.
        self.prompts = {"data.prompt": sorted({image["prompt"] for image in images} | prompts.texts)}
        #: What this set is to hold.
        self.items: Sequence[PlannedImage] = images[shard::shards]
        #: Indices of the images that are there already.
        self.made: Set[int] = frozenset()

    def batches(self) -> list[Sequence[PlannedImage]]:
        """Those of this rank, which makes every `world_size`-th image of the shard."""
        rank, ranks = rank_and_ranks(self.trainer)
        if len(self.items) < ranks:  # a process without an image would let the others wait for it
            raise InputError(f"data.count: {len(self.items)} images are fewer than the {ranks} processes. Use fewer.")
        mine = self.items[rank::ranks]
        return [mine[start : start + self.batch_size] for start in range(0, len(mine), self.batch_size)]

    def predict_dataloader(self) -> DataLoader[Any]:
        """The batches of this rank in which an image is missing.

        The last one comes in any case: of a rank without any, Lightning would skip the end as well.
        """
        batches = self.batches()
        left = [batch for batch in batches if any(image["index"] not in self.made for image in batch)]
        # All but the last are full, so these are cut again as they were.
        images = [image for batch in left or batches[-1:] for image in batch]
        return DataLoader(images, batch_size=self.batch_size)  # type: ignore[arg-type]


def image_seed(run_seed: int, index: int) -> int:
    """The seed of the generated image with this global index; a function of nothing else."""
    return stream_seed(run_seed, Purpose.IMAGE, index)

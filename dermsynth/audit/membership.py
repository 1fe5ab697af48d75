"""Was this patient in the training set? What a checkpoint's denoising loss gives away of its training images.

An image that a model was trained on tends to have a lower denoising loss than others (Carlini et al. 2023, "Extracting
training data from diffusion models", sec. 5). How hard an image is in itself is taken off: the score is the loss of the
base, before fine-tuning, minus that of the checkpoint at the same noise (calibration by a reference model: Watson et
al. 2022). An area near 0.5 says that this test finds nothing, and not that no other would.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from dermsynth.audit.answers import Attack, Membership
from dermsynth.audit.estimates import auroc, true_positive_rate
from dermsynth.data.loading.lesion_images import LesionImages, Sample, ShowPixels
from dermsynth.data.loading.modules import DreamBoothData
from dermsynth.data.loading.transforms import Transform
from dermsynth.data.mixing.sampler import ShardSampler
from dermsynth.diffusion.dreambooth import KIND, DreamBooth
from dermsynth.diffusion.parts import load_parts
from dermsynth.errors import InputError
from dermsynth.evaluation.statistics import Booleans, Floats
from dermsynth.hub import first_line
from dermsynth.provenance import check_provenance
from dermsynth.run.checkpoint_facts import kind_of
from dermsynth.run.checkpoint_io import configuration_of, read_checkpoint
from dermsynth.run.classes import named
from dermsynth.seeds import Purpose, entropy

#: The share of held-out images that may be taken for training images where those that are found are counted.
FALSE_POSITIVES = 0.01
#: Images of each side; of more, so many are taken at random.
MOST = 2000
_BATCH = 8
# What a run says of its data that decides which images there are, and what each is called and shown as.
_KEPT = ("classes", "size", "token", "instance_prompt", "metadata", "fold")


def memberships(
    checkpoints: Sequence[Path], real: Path, base: str | None = None, seed: int = 0, most: int = MOST
) -> tuple[Membership, ...]:
    """The test of each checkpoint: the train split that it was fitted on against validation and test.

    Args:
        checkpoints: of DreamBooth runs.
        real: the image set that they were fitted on.
        base: where their base lies now; by default where each run says.
        seed: of the choice of images where a side has more than `most`.
        most: images of each side.

    Raises:
        InputError: a checkpoint is none of a DreamBooth run, or was fitted on another train split.
    """
    of_base: dict[str, Floats] = {}  # the checkpoints of a run have one base
    return tuple(_test(checkpoint, real, base, seed, most, of_base) for checkpoint in checkpoints)


def losses(module: DreamBooth, data: DreamBoothData, samples: Sequence[Sample], name: str) -> Floats:
    """The denoising loss of each image, at noise and timesteps of its own (`diffusion/held_out.py`).

    Args:
        module: in evaluation mode.
        data: says how images are described.
        samples: N images.
        name: of the weights, for the progress bar and a message.

    Returns:
        `[N]`.

    Raises:
        InputError: one is not finite.
    """
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    show = ShowPixels(samples, Transform(data.size, "none"), cache=None)
    images = LesionImages(samples, show, data.describe, held_out=True)
    loader = DataLoader(images, batch_size=_BATCH, sampler=ShardSampler(len(images), 0, 1))
    found = []
    with torch.no_grad():
        for batch in tqdm(loader, f"losses of {name}", unit="batch", mininterval=1, delay=1):
            pixels = batch["pixel_values"].to(module.device)
            found.append(module.held_out_losses({**batch, "pixel_values": pixels}).double().cpu().numpy())
    values = np.concatenate(found)
    if not np.isfinite(values).all():
        raise InputError(f"{name}: the denoising loss of an image is not a number. Take another checkpoint of the run.")
    return values


def attack(samples: Sequence[Sample], train: Booleans, before: Floats, after: Floats) -> Attack:
    """What the losses tell of N images.

    Args:
        samples: the images.
        train: which of them were trained on, `[N]`.
        before: the base's losses, `[N]`.
        after: the checkpoint's, `[N]`.
    """
    groups = np.unique([sample.record.group for sample in samples], return_inverse=True)[1].astype(np.int64)
    return Attack(
        train=int(train.sum()),
        held_out=int((~train).sum()),
        held_out_patients=len(np.unique(groups[~train])),
        auroc=auroc(before - after, train, groups),
        found=true_positive_rate(before - after, train, groups, FALSE_POSITIVES),
        by_loss=auroc(-after, train, groups),
        by_base=auroc(-before, train, groups),
    )


def _test(
    checkpoint: Path, real: Path, base: str | None, seed: int, most: int, of_base: dict[str, Floats]
) -> Membership:
    content = read_checkpoint(checkpoint)
    if kind_of(content) != KIND:
        raise InputError(f"{checkpoint}: not a checkpoint of a DreamBooth run. Give one of the generator's.")
    try:
        config = configuration_of(content)
        data = _data(config, real)
        fitted = check_provenance("it", content["dermsynth"].get("data", {})).get("train_split_sha256", "")
        if fitted != data.train_split_sha256:
            raise InputError(
                f"it was fitted on another train split ({fitted[:12]}) than that of {real} "
                f"({data.train_split_sha256[:12]}). Give the set that it was fitted on as --real."
            )
        module = DreamBooth.of_configuration(config, **({"base": base} if base else {})).eval()
        _refuse_other_target(module)
        train = _sampled(data.samples["train"], most, seed)
        held_out = _sampled([*data.samples["val"], *data.samples["test"]], most, seed)
        if not train or not held_out:
            raise InputError(f"{real} has no held-out image of the run's classes, which the test compares with.")
        samples, name = [*train, *held_out], _name(checkpoint)
        key = str((config["model"], config["data"]))
        if key not in of_base:  # untrained, the module is its base
            of_base[key] = losses(module, data, samples, f"the base of {name}")
        known = _known_to_base(module, data, train)
        after = losses(module.take(content), data, samples, name)
    except InputError as error:
        raise InputError(f"{checkpoint}: {error}") from error
    is_train, before = np.arange(len(samples)) < len(train), of_base[key]
    labels = np.array([sample.label for sample in samples])

    def of(chosen: Booleans) -> Attack:
        some = [samples[number] for number in np.flatnonzero(chosen)]
        return attack(some, is_train[chosen], before[chosen], after[chosen])

    return Membership(
        checkpoint=name,
        step=int(content.get("global_step", 0)),
        base=module.parts.base,
        known_to_base=known,
        overall=of(np.ones(len(samples), dtype=np.bool_)),
        classes={class_name: of(labels == number) for number, class_name in enumerate(data.classes)},
    )


def _data(config: dict[str, Any], real: Path) -> DreamBoothData:
    """The run's real images and their captions, without augmentation, and nothing generated."""
    kind = named(config["data"]["class_path"])
    if kind != DreamBoothData.__name__:
        raise InputError(
            f"its run was trained with data {kind}, whose images are not known. Give one of DreamBoothData."
        )
    given = config["data"].get("init_args", {})
    try:
        data = DreamBoothData(
            real=real, batch_size=_BATCH, **{name: given[name] for name in _KEPT if given.get(name) is not None}
        )
    except TypeError as error:
        raise InputError(f"its configuration is not one of DreamBoothData: {first_line(error)}") from error
    data.setup("predict")  # asks for images of no particular split
    return data


def _refuse_other_target(module: DreamBooth) -> None:
    """Losses of ε and of v, or on two noise schedules, cannot be subtracted."""
    asked = module.objective
    if not (asked.prediction_type or asked.zero_terminal_snr):
        return
    own = load_parts(module.parts.base).scheduler.config
    if any(own[key] != module.parts.scheduler.config[key] for key in ("prediction_type", "rescale_betas_zero_snr")):
        raise InputError(
            "the run changed what its base predicts (model.objective), so that their losses cannot be compared. The "
            "membership test is for runs that keep it; leave this checkpoint out."
        )


def _sampled(samples: Sequence[Sample], most: int, seed: int) -> list[Sample]:
    """So many of the images, in their order."""
    if len(samples) <= most:
        return list(samples)
    rng = np.random.default_rng(entropy(seed, Purpose.AUDIT, number=most))
    return [samples[number] for number in np.sort(rng.choice(len(samples), most, replace=False))]


def _known_to_base(module: DreamBooth, data: DreamBoothData, train: Sequence[Sample]) -> int:
    """How many of the train images the base was fitted on, as far as it says."""
    said = module.parts.provenance
    if said.get("train_split_sha256") == data.train_split_sha256:
        return len(train)
    names = set(said.get("train_images", []))
    return sum(sample.record.image_id in names for sample in train)


def _name(checkpoint: Path) -> str:
    folder = checkpoint.absolute().parent
    run = folder.parent if folder.name == "checkpoints" else folder
    return f"{run.name}/{checkpoint.name}"

"""What frozen models make of images and prompts, computed once: the moments of latents, and prompt embeddings.

Of an image the *moments* are kept, the mean and log-variance that the autoencoder gives, and not one sample of them: a
training step draws a latent from them afresh. They are known by the image's content, the autoencoder, size and view,
embeddings by the prompt, text encoder and tokenizer; runs share what they have in common.
"""

import math
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from dermsynth.contracts import FrozenEncoders, Processes
from dermsynth.data.loading.shelf import Shelf
from dermsynth.data.loading.transforms import centre_views
from dermsynth.data.sets.images import cores, read_rgb
from dermsynth.data.sets.manifest import Record, sha256_file
from dermsynth.data.sets.views import VIEWS, random_view
from dermsynth.errors import InputError
from dermsynth.files import make_folder
from dermsynth.run.ranks import done_by, rank_and_ranks, told_by_first

_T = TypeVar("_T")

#: The eight, or the image as it is.
ALL_VIEWS, UPRIGHT = tuple(range(VIEWS)), (0,)

# Images, or prompts, of a file: what a process that is killed has to do again.
_IN_A_FILE = 256
# Images that are encoded at once, whatever the size of training batches: all eight views of one.
_AT_ONCE = 8
# Seconds. What another machine wrote, NFS may not list for a minute.
_SEEN_WITHIN, _LOOK_AGAIN = 90, 1


class LatentCache:
    """The cache of one autoencoder, text encoder and size.

    Args:
        folder: where it lies, or will; one that all processes see.
        size: pixels of the square that is encoded, the centre of an image.
        encoders: the models.
    """

    def __init__(self, folder: Path, size: int, encoders: FrozenEncoders) -> None:
        self.size, self._encoders = size, encoders
        made_by: dict[str, object] = {"vae": encoders.vae_sha256, "size": size}
        self._moments = Shelf(folder, f"moments-{size}px", made_by)
        text = encoders.text_sha256
        self._embeddings = Shelf(folder, "prompts", {"text_encoder": text}) if text else None

    def fill(
        self,
        images: Sequence[tuple[Path, Record, Sequence[int]]],
        prompts: Sequence[str],
        trainer: Processes,
        showings: float = math.inf,
    ) -> None:
        """Compute what is missing, each process a share of it; all wait until all have done theirs.

        Args:
            images: files with their records and the numbers of their views.
            prompts: to be embedded, unless the text encoder is trained.
            trainer: of this process.
            showings: images that the run will show; where more views are missing, that is said.

        Raises:
            InputError: an image is broken or not the one of its record, the disk is full, or the processes do not see
                one folder.
        """
        paths = {record.sha256: path for path, record, _ in images}
        names = [_name(record, view) for _, record, views in images for view in views]

        def missing() -> tuple[list[str], list[str]]:
            return self._moments.missing(names), self._embeddings.missing(prompts) if self._embeddings else []

        def begin() -> tuple[tuple[list[str], list[str]], str]:
            for shelf in filter(None, (self._moments, self._embeddings)):
                shelf.delete_left_overs()
            return missing(), secrets.token_hex(8)

        rank, ranks = rank_and_ranks(trainer)
        left, run = told_by_first(begin, trainer)
        if not any(left):
            return
        if rank == 0 and len(left[0]) > showings:
            print(
                f"data.latent_cache: {len(left[0]):,} views are to be encoded, and the run shows {showings:,} images: "
                "without the cache it is faster, unless other runs share it."
            )
        # By it the others hear of a failure before they have encoded their whole share.
        failure = self._moments.folder.parent / f".failed-{run}"
        try:
            done_by(range(ranks), lambda: self._encode(*left, paths, trainer, failure), trainer)
        finally:
            failure.unlink(missing_ok=True)
            self._encoders.release()

        def check() -> None:
            until = time.monotonic() + _SEEN_WITHIN
            while any(missing()):
                if time.monotonic() > until:
                    raise InputError(
                        f"data.latent_cache: {self._moments.folder.parent}: process {rank} does not see what the "
                        "others wrote. Give a folder on a disk that all machines share."
                    )
                time.sleep(_LOOK_AGAIN)

        done_by(range(ranks), check, trainer)

    def moments_of(self, records: Sequence[Record], views: Sequence[int]) -> "CachedMoments":
        """The moments of these images in these views, to be shown in training or validation."""
        return CachedMoments(self._moments, records, views)

    def embeddings_of(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The embedding of each prompt, float32 `[L, D]`; none if the text encoder is trained."""
        if self._embeddings is None:
            return {}
        places = self._embeddings.places(prompts)
        # Lightning makes validation's loader in inference mode, whose tensors training could not use.
        with torch.inference_mode(False):
            return {prompt: self._embeddings[place] for prompt, place in zip(prompts, places, strict=True)}

    def _encode(
        self, names: Sequence[str], prompts: Sequence[str], paths: dict[str, Path], trainer: Processes, failure: Path
    ) -> None:
        rank, ranks = rank_and_ranks(trainer)
        make_folder(self._moments.folder)
        device = trainer.strategy.root_device
        try:
            with torch.inference_mode():
                if self._embeddings:
                    for some in _slices(prompts[rank::ranks], _IN_A_FILE):
                        parts = [self._encoders.embeddings(few, device).cpu() for few in _slices(some, _AT_ONCE)]
                        self._embeddings.add(some, torch.cat(parts))
                self._encode_images(names, paths, device, rank, ranks, failure)
        except Exception as error:
            if ranks > 1:
                print(f"data.latent_cache: process {rank} failed: {error}", file=sys.stderr, flush=True)
                with suppress(OSError):  # a full disk may be what failed
                    failure.write_text(str(error), encoding="utf-8")
            raise

    def _encode_images(
        self, names: Sequence[str], paths: dict[str, Path], device: torch.device, rank: int, ranks: int, failure: Path
    ) -> None:
        views: dict[str, list[int]] = {}
        for name in names:
            sha256, _, number = name.partition("/")
            views.setdefault(sha256, []).append(int(number))
        mine = list(views)[rank::ranks]

        def read(sha256: str) -> Tensor:
            path = paths[sha256]
            image = read_rgb(path)
            if sha256_file(path) != sha256:
                raise InputError(f"{path}: it is not the image of its row in metadata.csv. Prepare the set again.")
            return centre_views(image, self.size, views[sha256])

        total = sum(len(views[sha256]) for sha256 in mine)
        bar = tqdm(total=total, desc=f"latents at {self.size}", unit="view", mininterval=1, disable=rank > 0)
        with bar, ThreadPoolExecutor(cores()) as pool:
            for file, some in enumerate(_slices(mine, _IN_A_FILE)):
                if failure.exists():
                    return  # why is said by the process that failed
                parts = []
                for images in _read_ahead(pool, read, _slices(some, _AT_ONCE)):
                    for pixels in torch.cat(images).split(_AT_ONCE):
                        parts.append(self._encoders.moments(pixels.to(device)).half().cpu())
                        bar.update(len(pixels))
                if file == 0:
                    self._refuse_small_disk(parts[0][0].nbytes * len(names))
                self._moments.add([f"{sha256}/{view}" for sha256 in some for view in views[sha256]], torch.cat(parts))

    def _refuse_small_disk(self, needed: int) -> None:
        folder = self._moments.folder
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise InputError(
                f"data.latent_cache: {folder} needs {needed / 1e9:.1f} GB and has {free / 1e9:.1f} GB left. Give "
                "another folder, train with augmentation none, or without the cache."
            )


class CachedMoments:
    """Moments of images as they are shown: the call has the place of `dermsynth.data.loading.lesion_images.Show`.

    float16 halves the disk and is far finer than the noise that training adds.
    """

    def __init__(self, shelf: Shelf, records: Sequence[Record], views: Sequence[int]) -> None:
        self._shelf = shelf
        names = [_name(record, view) for record in records for view in views]
        self._places = shelf.places(names).reshape(len(records), len(views), 2)

    def __call__(self, number: int, seed: int) -> dict[str, Tensor]:
        """`moments` of an image, float16 `[2C, h, w]`, in the view that the seed draws."""
        views = self._places[number]
        return {"moments": self._shelf[views[random_view(seed) if len(views) == VIEWS else 0]]}


def _read_ahead(
    pool: Executor, read: Callable[[str], Tensor], groups: Sequence[Sequence[str]]
) -> Iterator[list[Tensor]]:
    """What is read of each group; the next one is read meanwhile."""
    coming = pool.map(read, groups[0])
    for following in [*groups[1:], ()]:
        here, coming = coming, pool.map(read, following)  # it begins at once
        yield list(here)


def _name(record: Record, view: int) -> str:
    return f"{record.sha256}/{view}"


def _slices(whole: Sequence[_T], length: int) -> list[Sequence[_T]]:
    return [whole[first : first + length] for first in range(0, len(whole), length)]

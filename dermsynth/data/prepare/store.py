"""The images of a download resized into an image set by several processes at once; broken ones are quarantined."""

import csv
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2
from tqdm import tqdm

from dermsynth.data.prepare.layouts.download import SourceImage
from dermsynth.data.sets import images
from dermsynth.data.sets.cleaning import Cleaning
from dermsynth.errors import BrokenImageError, InputError
from dermsynth.files import make_folder, utf8, write_atomically

QUARANTINE = "quarantine.csv"


def store_all(
    found: Sequence[SourceImage],
    out: Path,
    size: int,
    processes: int | None = None,
    max_broken: float = 0.0,
    cleaning: Cleaning | None = None,
) -> list[images.Stored | None]:
    """Resize every image that is not there yet; what cannot be read is listed in `quarantine.csv` beside them.

    Args:
        found: what a download holds.
        out: folder of the image set.
        size: pixels of the short side.
        processes: that decode at the same time; one for each core if not given.
        max_broken: the share of images that may be broken.
        cleaning: what is done to them beside resizing.

    Returns:
        What was stored, in the order of `found`; None for an image in quarantine.

    Raises:
        InputError: more than that share is broken, all are, or the set cannot be written to.
    """
    folder = out / "images"
    make_folder(folder)
    jobs = [
        _Job(image.path, image.member, out / image.record.file_name, size, cleaning or Cleaning()) for image in found
    ]
    running = _run(jobs, min(processes or images.cores(), len(jobs)))
    results = list(tqdm(running, total=len(jobs), desc=f"resize to {size}", unit="image", mininterval=1))
    for left_over in folder.glob(".*.part"):  # from a run that was killed
        left_over.unlink()
    broken = [(image, result) for image, result in zip(found, results, strict=True) if isinstance(result, str)]
    _list_broken(out / QUARANTINE, broken)
    if len(broken) > max_broken * len(jobs) or len(broken) == len(jobs):
        image, reason = broken[0]
        raise InputError(
            f"{len(broken)} of {len(jobs)} images cannot be used, such as {image.path}: {reason} All are listed in "
            f"{out / QUARANTINE}. Fix them and run the same command again, or allow a larger share than --max_broken "
            f"{max_broken:g}."
        )
    return [None if isinstance(result, str) else result for result in results]


@dataclass(frozen=True, slots=True)
class _Job:
    source: Path
    member: str
    target: Path
    size: int
    cleaning: Cleaning


def _list_broken(table: Path, broken: Sequence[tuple[SourceImage, str]]) -> None:
    """Write the list again: what was fixed since the last run is no longer on it."""
    if not broken:
        table.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image_id", "source", "file_name", "reason"])
    # Names and not paths: a set may be given away.
    writer.writerows(
        [i.record.image_id, i.record.source, i.member or utf8(i.path.name), reason] for i, reason in broken
    )
    write_atomically(table, text.getvalue())


def _run(jobs: Sequence[_Job], processes: int) -> Iterator[images.Stored | str]:
    if processes == 1:
        yield from map(_store, jobs)
        return
    # Spawned, not forked: a fork copies the locks of OpenCV's threads in whatever state they are.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_worker) as pool:
        try:
            yield from pool.map(_store, jobs, chunksize=8)
        except InputError:
            # A full disk is full for every image: do not try the other 400,000.
            pool.shutdown(cancel_futures=True)
            raise
        except BrokenProcessPool as error:
            raise InputError(
                f"one of {processes} processes that resize was killed, mostly for want of memory. Run the same command "
                "again, which resumes where it stopped, with fewer --processes or more memory."
            ) from error


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)  # The parent was killed; nobody would ever end this process.

    threading.Thread(target=follow, daemon=True).start()


def _store(job: _Job) -> images.Stored | str:
    """Bring one image into the set; the reason if it is broken, so that one bad file stops nothing."""
    if known := images.stored(job.target):
        return known
    try:
        photograph = images.load(job.source, job.cleaning.cover(job.size), job.member)
        image = images.fit_short_side(job.cleaning(photograph), job.size)
    except BrokenImageError as error:
        return error.reason
    except cv2.error as error:
        return f"cannot be resized to {job.size} pixels ({error.err})."
    return images.write_png(job.target, image)

"""The images of a download, resized into an image set by several processes at once."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from dermsynth.data import images
from dermsynth.data.isic import SourceImage
from dermsynth.errors import InputError


def store_all(found: Sequence[SourceImage], out: Path, size: int, processes: int | None = None) -> list[images.Stored]:
    """Resize every image that is not there yet; all of them are tried before the bad ones are reported.

    Args:
        found: what a download holds.
        out: folder of the image set.
        size: pixels of the short side.
        processes: that decode at the same time; one for each core if not given.

    Returns:
        What was stored, in the order of `found`.

    Raises:
        InputError: naming the images that cannot be used.
    """
    folder = out / "images"
    folder.mkdir(exist_ok=True)
    jobs = [(image.path, out / image.record.file_name, size) for image in found]
    running = _run(jobs, min(processes or _cores(), len(jobs)))
    results = list(tqdm(running, total=len(jobs), desc=f"resize to {size}", unit="image", mininterval=1))
    for left_over in folder.glob(".*.part"):  # from a run that was killed
        left_over.unlink()
    broken = [result for result in results if isinstance(result, str)]
    if broken:
        lines = "\n".join(f"  {message}" for message in broken[:5])
        more = f"\n  and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise InputError(f"{len(broken)} of {len(jobs)} images cannot be used:\n{lines}{more}")
    return [result for result in results if not isinstance(result, str)]


_Job = tuple[Path, Path, int]


def _run(jobs: Sequence[_Job], processes: int) -> Iterator[images.Stored | str]:
    if processes == 1:
        yield from map(_store, jobs)
        return
    # Spawned, not forked: a fork copies the locks of OpenCV's threads in whatever state they are.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_worker) as pool:
        yield from pool.map(_store, jobs, chunksize=8)


def _begin_worker() -> None:
    images.use_one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)  # The parent was killed; nobody would ever end this process.

    threading.Thread(target=follow, daemon=True).start()


def _store(job: _Job) -> images.Stored | str:
    """Bring one image into the set; a message instead of an exception, so that one bad file stops nothing."""
    source, target, size = job
    try:
        return images.stored(target) or images.write_png(target, images.load_resized(source, size))
    except InputError as error:
        return str(error)


def _cores() -> int:
    # A Slurm job or container may run on fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

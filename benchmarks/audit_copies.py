"""The search for copies, in pixels and in features, as large as an audit makes it: its time and memory.

    python -m benchmarks.audit_copies

Random smooth pictures stand in for photographs and random vectors for their features; one generated picture in a
hundred is a turned copy of a train picture, encoded again as JPEG. The time is that of `--searched` queries, from which
that of `--generated` follows, as queries are independent of one another; the memory is that of all of them. The plain
alternative compares every query in every view with every train picture, tile by tile, for `--plain` queries and as many
train pictures; `ratio` is how many times as long that takes a pair. The last line is JSON.
"""

import json

import cv2
import numpy as np

from benchmarks.measure import numbers_given, peak_gb, timed
from dermsynth.audit.copies import nearest_in_features
from dermsynth.audit.nearest import SIDE, search, turned, worst_tile
from dermsynth.data.sets.views import VIEWS


def main() -> None:
    asked = numbers_given(__doc__, generated=100_000, train=33_000, searched=2_000, plain=60, width=512)
    train, generated, owners = pictures(asked.train, asked.generated)
    rng = np.random.default_rng(0)
    views = rng.standard_normal((VIEWS, asked.train, asked.width), np.float32)
    features = rng.standard_normal((asked.generated, asked.width), np.float32)
    print(f"arrays: {peak_gb():.2f} GB", flush=True)

    searched = slice(0, asked.searched)
    found, *in_pixels = timed(lambda: search(generated[searched], train, np.arange(asked.train)))
    _, *in_features = timed(lambda: nearest_in_features(features[searched], views))
    memory = peak_gb()
    _, plain_seconds = timed(lambda: all_pairs(generated[: asked.plain], train[: asked.plain]))[:2]
    of_copies = owners[searched] >= 0
    hours = asked.generated / asked.searched / 3600
    plain_of_a_pair = plain_seconds / asked.plain**2
    numbers = {
        "generated": asked.generated,
        "train": asked.train,
        "searched": asked.searched,
        "memory_gb": round(memory, 2),
        "planted_found": round(float((found.train == owners[searched])[of_copies].mean()), 4),
        "pixels_wall_s": round(in_pixels[0], 1),
        "pixels_cpu_s": round(in_pixels[1], 1),
        "features_wall_s": round(in_features[0], 1),
        "features_cpu_s": round(in_features[1], 1),
        "all_cpu_hours": round((in_pixels[1] + in_features[1]) * hours, 2),
        "ratio": round(plain_of_a_pair / (in_pixels[0] / asked.searched / asked.train), 1),
    }
    print(json.dumps(numbers))


def pictures(train: int, generated: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train pictures, generated ones, and of which train picture each of these is a copy; -1 where of none."""
    rng = np.random.default_rng(0)
    both = np.empty((train + generated, SIDE, SIDE, 3), np.uint8)
    for place in range(len(both)):
        coarse = rng.integers(0, 256, (7, 7, 3), np.uint8)
        both[place] = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    owners = np.full(generated, -1)
    for place in range(0, generated, 100):
        owners[place] = rng.integers(train)
        copy = turned(both[owners[place]][None], int(rng.integers(VIEWS)))[0]
        encoded = cv2.imencode(".jpg", cv2.resize(copy, (128, 128)), [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
        again = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        both[train + place] = cv2.resize(again, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return both[:train], both[train:], owners


def all_pairs(generated: np.ndarray, train: np.ndarray) -> list[int]:
    """The plain way: the worst tile of every pair in every view."""
    views = [turned(generated, number) for number in range(VIEWS)]
    return [
        int(np.argmin([min(worst_tile(view[place], original) for view in views) for original in train]))
        for place in range(len(generated))
    ]


if __name__ == "__main__":
    main()

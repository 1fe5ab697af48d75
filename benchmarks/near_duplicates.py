"""The search for near-duplicates against comparing all pairs, in one run on the same images.

    python benchmarks/near_duplicates.py [--images 400000] [--plain 20000]

Random smooth pictures stand in for photographs; one in a hundred is a mirrored copy of another, encoded again as JPEG,
and one in a hundred is plain skin, of which all hashes are alike. Both ways look for pairs whose hashes differ in at
most ten bits in some view. The last line is one JSON object; `ratio` is how many times faster the search is than all
pairs at `--plain` images.
"""

import argparse
import json
import resource
import sys
import time

import cv2
import numpy as np

from dermsynth.data import near_duplicates as near


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=400_000)
    parser.add_argument("--plain", type=int, default=20_000)
    arguments = parser.parse_args()
    thumbnails, planted = pictures(arguments.images)

    hash_s, hashed = timed(lambda: near.hashes(thumbnails))
    search_s, pairs = timed(lambda: near.candidates(hashed))
    confirm_s, same = timed(lambda: near.confirm(thumbnails, pairs))
    found = set(map(tuple, pairs[same][:, :2].tolist()))

    few = hashed[-arguments.plain :]
    fast_s, fast = timed(lambda: near.candidates(few))
    plain_s, plain = timed(lambda: all_pairs(few))
    result = {
        "images": arguments.images,
        "hash_s": round(hash_s, 1),
        "search_s": round(search_s, 1),
        "candidates": len(pairs),
        "confirm_s": round(confirm_s, 1),
        "memory_gb": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform != "darwin" else 1 << 30), 2
        ),
        "planted": len(planted),
        "planted_found": len(found & planted),
        "plain_images": len(few),
        "plain_all_pairs_s": round(plain_s, 2),
        "plain_search_s": round(fast_s, 2),
        "all_pairs": len(plain),
        "all_pairs_found": len(plain & set(map(tuple, fast[:, :2].tolist()))),
        "ratio": round(plain_s / fast_s, 1),
    }
    print(json.dumps(result))


def pictures(count: int) -> tuple[np.ndarray, set[tuple[int, int]]]:
    """Thumbnails, and the pairs of original and copy among them."""
    rng = np.random.default_rng(0)
    thumbnails = np.empty((count, near.SIDE, near.SIDE), np.uint8)
    for place in range(count):
        coarse = rng.integers(0, 256, (rng.integers(5, 12), rng.integers(5, 12)), np.uint8)
        thumbnails[place] = cv2.resize(coarse, (near.SIDE, near.SIDE), interpolation=cv2.INTER_CUBIC)
    each = count // 100
    for place in range(each):
        picture = cv2.resize(near.view(thumbnails[place], int(rng.integers(near.VIEWS))), (96, 96))
        encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
        again = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
        thumbnails[count - 1 - place] = cv2.resize(again, (near.SIDE, near.SIDE), interpolation=cv2.INTER_AREA)
        thumbnails[each + place] = 200
    return thumbnails, {(place, count - 1 - place) for place in range(each)}


def all_pairs(hashed: np.ndarray) -> set[tuple[int, int]]:
    """The plain way: every image with every later one, in every view."""
    found = set()
    for place in range(len(hashed) - 1):
        apart = np.bitwise_count(hashed[place, 0] ^ hashed[place + 1 :]).min(axis=1)
        found |= {(place, place + 1 + int(other)) for other in np.flatnonzero(apart <= 10)}
    return found


def timed(work):  # noqa: ANN001, ANN201
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()

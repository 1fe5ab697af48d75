"""The search for near-duplicates against comparing all pairs, in one run on the same images.

    python -m benchmarks.near_duplicates

Random smooth pictures stand in for photographs; one in a hundred is a mirrored or turned copy of another, encoded again
as JPEG, and one in a hundred is plain skin, of which all hashes are alike. The steps of the search are timed for all of
them; then, for a part of them, the search and the comparison of all pairs, which look for the same hashes. The last
line is JSON, with the seconds of the wall clock and of all cores' processors; `ratio` is how many times as long all
pairs take.
"""

import argparse
import json

import cv2
import numpy as np

from benchmarks.measure import peak_gb, timed
from dermsynth.data.sets import near_duplicates as near


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400_000)
    parser.add_argument("--plain", type=int, default=20_000, help="of these, compared each with each")
    arguments = parser.parse_args()
    thumbnails, planted = pictures(arguments.images)

    pairs, *times = timed(lambda: near.alike(thumbnails))
    taken = {"search": say("hashes and search", *times)}
    same, *times = timed(lambda: near.confirm(thumbnails, pairs))
    taken["compare"] = say("comparison", *times)
    found, memory = set(map(tuple, pairs[same][:, :2].tolist())), peak_gb()

    few = near.hashes(thumbnails[-arguments.plain :])
    fast, *fast_times = timed(lambda: near.candidates(few))
    slow, *slow_times = timed(lambda: all_pairs(few))
    say(f"search of {len(few)}", *fast_times)
    say(f"all pairs of {len(few)}", *slow_times)
    numbers = {
        "images": arguments.images,
        **{f"{step}_{clock}_s": value for step, both in taken.items() for clock, value in both.items()},
        "candidates": len(pairs),
        "memory_gb": round(memory, 2),
        "planted": len(planted),
        "planted_found": len(found & planted),
        "plain_images": len(few),
        "all_pairs": len(slow),
        "all_pairs_found": len(slow & set(map(tuple, fast[:, :2].tolist()))),
        "ratio": round(slow_times[1] / fast_times[1], 1),
        "wall_ratio": round(slow_times[0] / fast_times[0], 1),
    }
    print(json.dumps(numbers))


def say(step: str, wall: float, cpu: float) -> dict[str, float]:
    print(f"{step:<24} {wall:8.2f} s, {cpu:8.2f} s of processor", flush=True)
    return {"wall": round(wall, 2), "cpu": round(cpu, 2)}


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
        found |= {(place, place + 1 + int(other)) for other in np.flatnonzero(apart <= near.BITS_APART)}
    return found


if __name__ == "__main__":
    main()

"""Planted copies of real photographs are found, and photographs of other patients are let pass."""

from dataclasses import replace

import numpy as np
import pytest

from dermsynth.audit.copies import find_copies
from dermsynth.audit.features import DEFAULT, find_extractor
from dermsynth.audit.seen import see
from dermsynth.audit.sides import read_sides
from dermsynth.data.sets import manifest
from dermsynth.data.sets.images import read_rgb, write_png
from dermsynth.data.sets.manifest import Record
from dermsynth.tools.prepare import prepare
from tests.planted import KINDS

EACH = 100  # copies of a kind


def plant(real, out):
    """A generated set of copies of train images, their class the kind of copy."""
    (out / "images").mkdir(parents=True)
    train, records = real.split("train"), []
    chosen = np.random.default_rng(0).choice(len(train), EACH, replace=False)
    for kind, (name, make) in enumerate(KINDS.items()):
        for number in chosen:
            record = train[number]
            file_name = f"images/{kind}-{record.image_id}.png"
            stored = write_png(out / file_name, make(read_rgb(real.path(record))))
            records.append(
                Record(
                    file_name=file_name,
                    image_id=f"{kind}-{record.image_id}",
                    sha256=stored.sha256,
                    width=stored.width,
                    height=stored.height,
                    malignant=record.malignant,
                    group=file_name,
                    split="unused",
                    origin="synthetic",
                    source=name,
                )
            )
    manifest.write(out, records, {})


@pytest.mark.real_data
@pytest.mark.slow
def test_at_most_1_percent_false_alarms_and_95_percent_of_the_copies(real_data, tmp_path):
    real = tmp_path / "real"
    prepare([real_data / "isic2017"], real, size=256)
    plant(manifest.read(real), tmp_path / "copies")
    generated, originals = read_sides([tmp_path / "copies"], real)
    extractor = find_extractor(DEFAULT)
    train = see(originals.of_split("train"), extractor, all_views=True)
    held_out = originals.of_split("val", "test")
    known = {name for pair in originals.sets[0].info["near_duplicates"]["pairs"] for name in pair}
    strangers = [pair for pair in held_out.images if pair[1].image_id not in known]
    # Half of the strangers calibrate, the other half are those on whom false alarms are counted, and the other way.
    halves = [see(replace(held_out, images=tuple(strangers[start::2])), extractor) for start in range(2)]
    alarms = np.concatenate([find_copies(halves[n], halves[1 - n], train).copies for n in range(2)])
    found = find_copies(see(generated, extractor), see(held_out, extractor), train)
    assert found.result.reached <= 0.01
    kinds = np.array([record.source for record in generated.records])
    recall = {name: float(found.copies[kinds == name].mean()) for name in KINDS}
    print(recall, f"{alarms.mean():.4f} of {len(alarms)} strangers are called copies")
    assert min(recall.values()) >= 0.95
    assert alarms.mean() <= 0.01 + 2 * (0.01 * 0.99 / len(alarms)) ** 0.5
    names = [record.image_id.split("-")[1] for record in generated.records]
    ids = [record.image_id for record in train.side.records]
    right = np.array([ids[place] == name for place, name in zip(found.search.nearest.train, names, strict=True)])
    assert right[found.copies].mean() > 0.97

"""The command, from two sets on disk to its files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermsynth import made_from
from dermsynth.audit import result
from dermsynth.cli import main, tool, tool_arguments
from dermsynth.data.sets import manifest
from dermsynth.data.sets.images import write_png
from dermsynth.errors import InputError
from dermsynth.tools.audit import audit
from tests.builders import make_set
from tests.planted import drawn


def redraw(root, rng, copies=()):
    """Give the images of a set real shapes; the first few are copies of files."""
    images = manifest.read(root)
    records = []
    for number, record in enumerate(images.records):
        image = cv2.imread(str(copies[number]))[..., ::-1] if number < len(copies) else drawn(rng, 48, 48)
        stored = write_png(images.path(record), np.ascontiguousarray(image))
        records.append(type(record)(**{**vars_of(record), "sha256": stored.sha256, "width": 48, "height": 48}))
    manifest.write(root, records, images.info)


def vars_of(record):
    return {name: getattr(record, name) for name in record.__slots__}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A real set, and a generated one of which the first two images are copies of train images."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    real = make_set(folder / "real", {"NV": 40, "MEL": 40}, size=48)
    redraw(real, rng)
    generated = make_set(folder / "generated", {"NV": 20, "MEL": 15}, "train", "synthetic", 48)
    train = manifest.read(real).split("train")
    redraw(generated, rng, [real / record.file_name for record in train[:2]])
    return real, generated


@pytest.fixture(scope="module")
def audited(sets, tmp_path_factory):
    real, generated = sets
    out = tmp_path_factory.mktemp("audit") / "out"
    audit(out=out, real=real, synthetic=[generated])
    return out


def test_the_result_is_read_as_it_was_written(audited):
    found = result.read(audited)
    assert (found.real, found.synthetic, found.features) == ("real", ("generated",), "autoencoder of tiny")
    assert (found.n_train, found.n_held_out, found.n_synthetic) == (40, 40, 35)
    assert {row.class_name for row in found.fidelity.rows} == {"", "NV", "MEL"}
    assert found.foreign == ("generated",)
    assert json.loads((audited / "audit.json").read_text()) == json.loads(json.dumps(found.to_dict()))


def test_the_copies_are_found(audited):
    found = result.read(audited).copies
    assert found.rows[0].copies >= 2
    rows = (audited / "copies.csv").read_text().splitlines()
    assert {row.split(",")[1] for row in rows[1:3]} == {"s_NV_000", "s_NV_001"}
    height, width, _ = cv2.imread(str(audited / "copies.png")).shape
    assert width > height > 800


def test_the_text_says_what_was_measured_on_what(audited):
    said = (audited / "audit.txt").read_text()
    assert "anonym" not in said.lower()
    assert said.count("autoencoder of tiny") >= 4  # three tables, and the copies
    assert "Fewer than 20 images say little" in said
    assert "The generator of generated is not known to have been fitted on these train images" in said
    assert max(map(len, said.splitlines())) <= 100


def test_what_it_was_made_from(audited, sets):
    entry = made_from.read(audited)["audit"]
    assert entry["inputs"] == {"real": made_from.content(sets[0]), "synthetic.0": made_from.content(sets[1])}
    assert entry["settings"]["features"] == "tiny"


def test_the_same_seed_gives_the_same_result(audited, sets, tmp_path, capsys):
    words = ["audit", "--synthetic", str(sets[1]), "--real", str(sets[0]), "--out", str(tmp_path / "again")]
    assert main([*words, "--exclude"]) == 0
    assert (tmp_path / "again/audit.json").read_text() == (audited / "audit.json").read_text()
    assert "are excluded from mixing" in capsys.readouterr().out
    excluded = [r.image_id for r in manifest.read(sets[1]).records if r.extra["excluded"] == "copy"]
    assert {"s_NV_000", "s_NV_001"} <= set(excluded)


@pytest.mark.parametrize("words", [["a"], ["a", "b"], ["[a, b]"], ["a", "--seed", "3"]])
def test_several_paths_follow_one_flag(words):
    found = tool_arguments(tool("audit"), ["audit", "--synthetic", *words, "--real", "r", "--out", "o"])
    assert found["synthetic"] == [Path("a"), Path("b")][: 2 if "b" in words[-1] else 1]
    assert found["real"] == Path("r")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"synthetic": "real"}, "is of origin real"),
        ({"real": "generated"}, "is of origin synthetic"),
        ({"features": "./nowhere"}, "--features: no folder './nowhere'"),
        ({"out": "real"}, "it holds an image set"),
        ({"synthetic": "generated generated"}, "it is given twice"),
        ({"seed": -1}, "--seed -1: expected 0 or more"),
    ],
)
def test_what_cannot_be_audited(sets, tmp_path, change, said):
    folder = sets[0].parent
    given = {"synthetic": "generated", "real": "real", "features": "tiny", "out": "", **change}
    with pytest.raises(InputError, match=said):
        audit(
            out=folder / given["out"] if given["out"] else tmp_path / "out",
            real=folder / given["real"],
            synthetic=[folder / name for name in given["synthetic"].split()],
            features=given["features"],
            seed=given.get("seed", 0),
        )

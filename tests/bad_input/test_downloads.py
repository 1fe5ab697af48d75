"""Tables of a download that are broken or hostile, and links that lead out of it."""

from pathlib import Path

import pytest

from dermsynth.data.sets import manifest
from dermsynth.errors import InputError
from tests.bad_input.helpers import COUNT, PNG, VICTIM, go, table
from tests.data.prepare.layouts.helpers import COLUMNS_2020
from tests.rights import without_rights


def replaced(old, new):
    return lambda text: text.replace(old, new, 1)


NAMES = ["../outside/secret", "/etc/passwd", "..", ".", "a/b", "a\\b", "..\\secret", "C:\\secret", "", " ", "a b", "~"]
NAMES += [".hidden", "-rf", "name\nsecond", "ISIC_ä", "ISIC_\u202e", "a:b", "*", "%2e%2e"]
ROW = f"{VICTIM},IP_5,female,40,torso,melanoma,malignant,1"
TABLES = {
    **{
        f"name-{name!r}": (replaced(f"\n{VICTIM},", f'\n"{name}",'), "train.csv, line [78]: image_name .*image name")
        for name in NAMES
    },
    "name-nul": (replaced(VICTIM, "ISIC\0"), "train.csv"),
    "duplicate-row": (lambda text: text + ROW + "\n", "line 14: image_name 'ISIC_0000005' occurs twice"),
    "unknown-diagnosis": (replaced("melanoma", "wart"), "line 3: diagnosis 'wart'"),
    **{
        f"target-{t!r}": (replaced("malignant,1", f"malignant,{t}"), "line 3: target")
        for t in ("", "2", "yes", "-1", "1e0")
    },
    "age-in-words": (replaced(",40,", ",forty,"), "line 2: age_approx 'forty'"),
    **{
        f"no-{name}": (replaced(name, "x"), f"column {name} is missing; found .*x")
        for name in ("image_name", "patient_id", "target")
    },
    "cells-missing": (replaced(ROW, f"{VICTIM},IP_5"), "line 7: 8 cells expected"),
    "cells-too-many": (replaced(ROW, ROW + ",1,2"), "line 7: 8 cells expected"),
    "empty": (lambda text: "", "is missing"),
    "blank-lines": (lambda text: "\n\n\n", "is missing"),
    "header-only": (lambda text: COLUMNS_2020 + "\n", "hold no rows"),
    "image-missing": (lambda text: text + ROW.replace(VICTIM, "ISIC_9") + "\n", "missing: ISIC_9"),
    "open-quote": (replaced(ROW, '"' + ROW), "train.csv"),
    "endless-cell": (replaced("torso", "x" * 200_000), "not a CSV"),
    "latin-1": (lambda text: text.replace("torso", "Körper").encode("latin-1"), "UTF-8"),
    "utf-16": (lambda text: text.encode("utf-16"), "UTF-8"),
    "mixed": (lambda text: text.replace("torso", "ä").encode() + b"\xe4\n", "UTF-8"),
    "binary": (lambda text: PNG, "UTF-8"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_bad_table_is_an_error_that_names_it_and_makes_no_set(source, out, name):
    change, message = TABLES[name]
    changed = change(table())
    (source / "train.csv").write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    with pytest.raises(InputError, match=message) as error:
        go(source, out)
    assert "isic2020" in str(error.value)
    assert not out.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: ("\ufeff" + text).encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.rstrip("\n").encode(),
        lambda text: text.replace("torso", '"torso, left"').encode(),
        lambda text: text.replace("torso", "Körper").encode(),
        lambda text: "\n".join(line + ",x" + line.split(",")[0] for line in text.splitlines()).encode(),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", "\t").encode(),
    ],
    ids=["bom", "crlf", "no-last-newline", "quoted-comma", "umlaut", "unknown-column", "semicolons", "tabs"],
)
def test_a_table_may_be_written_in_other_ways(source, out, change):
    (source / "train.csv").write_bytes(change(table()))
    go(source, out)
    assert len(manifest.read(out).records) == COUNT


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: (s / "train" / f"{VICTIM}.png").write_bytes(PNG), "Keep one file per image"),
        (lambda s: (s / "ISIC_2020_Training_Duplicates.csv").write_text("a,b\n1,2\n"), "Duplicates.csv: column"),
        (lambda s: (s / "train" / f"{VICTIM}.jpg").unlink(), f"missing: {VICTIM}"),
        (lambda s: (s / "train").rename(s / "elsewhere"), "12 of 12 images that it names are missing"),
        (lambda s: (s / "train.csv").rename(s / "other.csv"), "no known layout"),
        (lambda s: (s / "ISIC-2017_Training_Part3_GroundTruth.csv").write_text(""), "more than one layout"),
        (lambda s: s.rename(s.with_name("moved")), "no such folder"),
    ],
)
def test_a_download_that_does_not_fit_together_is_an_error(source, out, spoil, message):
    spoil(source)
    with pytest.raises(InputError, match=message):
        go(source, out)
    assert not out.exists()


@pytest.mark.parametrize("what", ["", "train", "train.csv", "ISIC_2020_Training_Duplicates.csv"])
def test_what_cannot_be_read_of_a_download_is_named(source, out, what):
    (source / "ISIC_2020_Training_Duplicates.csv").write_text("image_name_1,image_name_2\n")
    with without_rights(source / what), pytest.raises(InputError) as error:
        go(source, out)
    assert str(error.value) == f"{source / what}: cannot be read (Permission denied)."
    assert not out.exists()


@pytest.mark.parametrize("what", ["image", "table", "folder", "device", "beside", "deep", "dangling"])
def test_a_link_out_of_a_download_is_not_followed(source, out, outside, what):
    place, target = {
        "image": (source / "train" / f"{VICTIM}.jpg", outside / "secret.png"),
        "table": (source / "train.csv", outside / "table.csv"),
        "folder": (source / "train", outside),
        "device": (source / "train" / f"{VICTIM}.jpg", Path("/dev/zero")),
        "beside": (source / "more", outside),
        "deep": (source / "deep" / "er", outside),
        "dangling": (source / "train" / f"{VICTIM}.jpg", outside / "nothing"),
    }[what]
    if place.exists():
        place.rename(source.parent / "away")
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(target)
    with pytest.raises(InputError) as error:
        go(source, out)
    assert str(error.value).startswith(f"{place}: a symbolic link that leaves {source}, ")
    assert str(target) not in str(error.value)
    assert not out.exists()


def test_links_within_a_download_and_to_all_of_it_are_fine(source, out, tmp_path):
    path = source / "train" / f"{VICTIM}.jpg"
    path.rename(source / "moved.bin")
    path.symlink_to(source / "moved.bin")
    (source / "train").rename(source / "pictures")
    (source / "train").symlink_to("pictures")
    (tmp_path / "link").symlink_to(source)
    go(tmp_path / "link", out)

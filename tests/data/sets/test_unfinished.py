import numpy as np
import pytest

from dermsynth.data.sets.images import stored
from dermsynth.data.sets.manifest import BEGUN
from dermsynth.data.sets.unfinished import BackgroundWriter, Drawn, begin
from dermsynth.errors import InputError

PLAN = {"images": {"NV": 2}, "steps": 25, "guidance_scale": (2.0, 3.5), "checkpoint": None}


def image(index, path, value=0):
    return Drawn(index, path, np.full((8, 9, 3), value, np.uint8), {"Description": "drawn"})


def test_a_folder_is_claimed_and_found_again(tmp_path):
    assert begin(tmp_path / "a/made", PLAN) == 0
    (tmp_path / "a/made/images/NV_000000.png").touch()
    assert begin(tmp_path / "a/made", PLAN) == 1


def test_another_plan_takes_a_folder_without_images(tmp_path):
    """As a command that was refused after it began may be corrected."""
    begin(tmp_path, PLAN)
    begin(tmp_path, {**PLAN, "steps": 30})
    (tmp_path / "images/NV_000000.png").touch()
    with pytest.raises(InputError, match=r"1 images of another plan \(steps: 30 there, 25 here\)"):
        begin(tmp_path, PLAN)


def test_a_plan_that_cannot_be_read_is_refused(tmp_path):
    begin(tmp_path, PLAN)
    (tmp_path / "images/NV_000000.png").touch()
    (tmp_path / BEGUN).write_text("{")
    with pytest.raises(InputError, match=rf"{BEGUN}: not JSON in UTF-8 .* Remove the folder"):
        begin(tmp_path, PLAN)


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    begin(tmp_path, PLAN)
    (tmp_path / "images/.NV_000000.png.ab.part").touch()
    (tmp_path / ".metadata.csv.ab.part").touch()
    begin(tmp_path, PLAN)
    assert sorted(file.name for file in tmp_path.rglob("*")) == [BEGUN, "images"]


def test_images_are_written_and_known_by_their_index(tmp_path):
    writer = BackgroundWriter()
    for start in (0, 2):
        writer.write([image(index, tmp_path / f"{index}.png", index) for index in (start, start + 1)])
    writer.finish()
    assert writer.stored == {index: stored(tmp_path / f"{index}.png") for index in range(4)}
    assert (writer.stored[3].width, writer.stored[3].height) == (9, 8)
    assert len({one.sha256 for one in writer.stored.values()}) == 4


@pytest.mark.parametrize("more", [True, False])
def test_an_image_that_cannot_be_written_ends_the_run(tmp_path, more):
    writer = BackgroundWriter()
    writer.write([image(0, tmp_path / "none/0.png")])
    with pytest.raises(InputError, match=r"none/0\.png: cannot be written"):
        writer.write([image(1, tmp_path / "1.png")]) if more else writer.finish()

import random
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from lightning import LightningModule, Trainer
from PIL import Image

from callbacks.image_set_writer import ImageSetWriter
from dermsynth import made_from
from dermsynth.data.loading.generation import GenerationData, image_seed
from dermsynth.data.sets import manifest
from dermsynth.data.sets.images import stored
from dermsynth.data.sets.manifest import BEGUN, sha256_file
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.sampling import Sampling
from dermsynth.errors import InputError
from dermsynth.seeds import Purpose, stream_seed
from tests.builders import make_set
from tests.processes import Ranks
from tests.tools.drawn import download, go

WORDS = ("nevus", "melanoma")
ROOT = Path(__file__).parents[2]


def generate(
    base, out, provenance=None, beside=None, steps=3, class_folders=False, kind=DreamBooth, redraws=10, **options
):
    options = {"classes": ["NV", "MEL"], "count": 3, "batch_size": 2, "seed": 4, **options}
    model = kind(base, sampling=Sampling(steps, 2.0, negative_prompt="hair"))
    model.provenance = {"token": "sks", **(provenance or {})}
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=out,
        logger=False,
        enable_progress_bar=False,
        callbacks=[ImageSetWriter(grid_images=2, beside=beside, class_folders=class_folders, redraws=redraws)],
    )
    trainer.predict(model, GenerationData(**options), return_predictions=False)
    return model


def test_it_writes_a_whole_image_set_with_its_provenance(base, tmp_path):
    known = {"base_model": "some/base", "train_split_sha256": "f" * 64, "license": "CC0-1.0", "attribution": "us"}
    model = generate(base, tmp_path / "made", known)
    made = manifest.read(tmp_path / "made")
    assert [r.image_id for r in made.records] == [f"MEL_{i:06d}" for i in (3, 4, 5)] + [f"NV_{i:06d}" for i in range(3)]
    for record in made.records:
        index = int(record.image_id[-6:])
        assert record.origin == record.image_manipulation == "synthetic"
        assert (record.split, record.source, record.group) == ("train", "made", f"image:{record.image_id}")
        assert record.diagnosis == ("NV" if index < 3 else "MEL")
        assert record.malignant == int(index >= 3)
        assert record.sha256 == sha256_file(made.path(record))
        assert (record.license, record.attribution) == ("CC0-1.0", "us")
        word = "nevus" if index < 3 else "melanoma"
        assert record.extra == {
            "prompt": f"a dermoscopic image of sks {word}",
            "seed": str(image_seed(4, index)),
            "negative_prompt": "hair",
            "guidance_scale": "2",
            "steps": "3",
            "scheduler": "dpmsolver++",
            "base_model": "some/base",
            "checkpoint_sha256": "",
            "train_split_sha256": "f" * 64,
        }
        pixels = cv2.imread(str(made.path(record)))[:, :, ::-1]
        again = model.sample([record.extra["prompt"]], [image_seed(4, index)])[0]
        assert np.abs(pixels.astype(int) - again).max() <= 1
        about = Image.open(made.path(record))
        assert "not a patient" in about.text["Description"]
        assert b"digitalsourcetype/trainedAlgorithmicMedia" in about.info["xmp"]
    width, height = Image.open(tmp_path / "made/grid.png").size
    assert width > 2 * 16 + 2, "the classes' names stand beside their rows"
    assert height == 2 * 16 + 2


def test_its_card_says_what_it_was_made_of_and_passes_the_bases_restrictions_on(base, tmp_path):
    shutil.copytree(base, tmp_path / "stable-diffusion-v1-5")
    generate(str(tmp_path / "stable-diffusion-v1-5"), tmp_path / "made")
    card = (tmp_path / "made/README.md").read_text()
    assert "CreativeML Open RAIL-M" in card
    assert "Fitted on: no image set; the base as it is" in card
    assert "- Steps: `3`\n" in card
    assert "| MEL | 3 |\n| NV | 3 |\n" in card


def test_generated_images_are_png_as_the_prepared_ones_are(base, tmp_path):
    """In what an image was compressed must not tell a model who made it."""
    generate(base, tmp_path / "made")
    go(download(tmp_path / "isic2020"), tmp_path / "real")
    for folder in ("made", "real"):
        files = sorted((tmp_path / folder / "images").iterdir())
        assert len(files) == len(manifest.read(tmp_path / folder).records)
        for file in files:
            with Image.open(file) as image:
                assert (image.format, file.suffix) == ("PNG", ".png")


def test_real_images_of_the_same_class_lie_above_on_the_picture(base, tmp_path):
    real = make_set(tmp_path / "real")
    generate(base, tmp_path / "made", beside=real)
    picture = np.asarray(Image.open(tmp_path / "made/grid.png"))
    margin = picture.shape[1] - (2 * 16 + 2)
    assert picture.shape == (4 * 16 + 6, margin + 2 * 16 + 2, 3)
    for row, name in ((0, "real/images/r_NV_000"), (1, "made/images/NV_000000"), (2, "real/images/r_MEL_000")):
        expected = np.asarray(Image.open(tmp_path / f"{name}.png"))
        assert np.array_equal(picture[row * 18 : row * 18 + 16, margin : margin + 16], expected)


def test_a_set_to_show_beside_is_looked_for_before_anything_is_generated(base, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        generate(base, tmp_path / "made", beside=tmp_path / "none")
    only_nevi = make_set(tmp_path / "nevi", {"NV": 8})
    generate(base, tmp_path / "made", beside=only_nevi)
    assert Image.open(tmp_path / "made/grid.png").height == 3 * 16 + 4


def test_a_set_that_was_begun_without_a_plan_is_made_again(base, tmp_path):
    (tmp_path / "made/images").mkdir(parents=True)
    (tmp_path / "made/images/NV_000099.png").write_bytes(b"left over")
    with pytest.raises(InputError, match="it holds images that predict did not make"):
        generate(base, tmp_path / "made")
    assert (tmp_path / "made/images/NV_000099.png").read_bytes() == b"left over"
    (tmp_path / "made" / BEGUN).touch()
    generate(base, tmp_path / "made")
    assert not (tmp_path / "made" / BEGUN).exists()
    assert len(list((tmp_path / "made/images").iterdir())) == len(manifest.read(tmp_path / "made").records)


def begin(base, out, monkeypatch, **options):
    """All images of a set, which is not completed."""

    def full(*arguments):
        raise InputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ImageSetWriter, "_picture", full)
        with pytest.raises(InputError, match="the disk is full"):
            generate(base, out, **options)
    assert not (out / "metadata.csv").exists()


def test_a_set_that_broke_off_is_completed_byte_for_byte(base, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole/made", tmp_path / "broken/made"
    generate(base, whole)
    begin(base, broken, monkeypatch)
    # Of the batches of two the first is whole, of the second one image is missing, of the third one is cut short.
    (broken / "images/NV_000002.png").unlink()
    cut = broken / "images/MEL_000004.png"
    cut.write_bytes(cut.read_bytes()[:-1])
    (broken / "images/.NV_000002.png.0123.part").write_bytes(b"half")
    kept = {name: (broken / f"images/{name}.png").stat().st_ino for name in ("NV_000000", "MEL_000003", "MEL_000005")}
    drawn, draw = [], DreamBooth.sample

    def sample(self, prompts, seeds, *more):
        drawn.extend(seeds)
        return draw(self, prompts, seeds, *more)

    monkeypatch.setattr(DreamBooth, "sample", sample)
    generate(base, broken)
    assert drawn == [image_seed(4, index) for index in (2, 3, 4, 5)]
    assert {name: (broken / f"images/{name}.png").stat().st_ino for name in kept} == kept
    assert_same_files(whole, broken)


def test_a_set_of_which_only_the_table_is_missing_gets_it(base, tmp_path, monkeypatch):
    generate(base, tmp_path / "whole/made")
    begin(base, tmp_path / "broken/made", monkeypatch)
    generate(base, tmp_path / "broken/made")
    assert_same_files(tmp_path / "whole/made", tmp_path / "broken/made")


def assert_same_files(one, other):
    """Two folders hold the same files of the same bytes."""
    files = [file.relative_to(one) for file in sorted(one.rglob("*")) if file.is_file()]
    assert files == [file.relative_to(other) for file in sorted(other.rglob("*")) if file.is_file()]
    assert {"metadata.csv", "dataset.json", "grid.png"} <= {file.name for file in files}
    for file in files:
        assert (one / file).read_bytes() == (other / file).read_bytes(), file


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": 4}, r"images: \{'NV': 3, 'MEL': 3\} there, \{'NV': 4, 'MEL': 4\} here; seeds and prompts: "),
        ({"seed": 5}, r"seeds and prompts: [0-9a-f]{64} there"),
        ({"steps": 4}, r"steps: 3 there, 4 here\)\. Give the command"),
        ({"class_folders": True}, r"class_folders: False there, True here"),
    ],
)
def test_images_of_another_plan_are_neither_mixed_nor_removed(base, tmp_path, monkeypatch, options, said):
    begin(base, tmp_path / "made", monkeypatch)
    with pytest.raises(InputError, match=rf"made: it holds 6 images of another plan \({said}"):
        generate(base, tmp_path / "made", **options)
    assert len(list((tmp_path / "made/images").glob("*.png"))) == 6


def test_the_size_of_batches_makes_no_other_plan(base, tmp_path, monkeypatch):
    begin(base, tmp_path / "made", monkeypatch)
    (tmp_path / "made/images/NV_000001.png").unlink()
    generate(base, tmp_path / "made", batch_size=5)
    assert len(manifest.read(tmp_path / "made").records) == 6


class SometimesBlank(DreamBooth):
    """Draws nothing for some seeds."""

    blank = frozenset(image_seed(4, index) for index in (1, 5)) | {stream_seed(image_seed(4, 5), Purpose.REDRAWN, 1)}

    def sample(self, prompts, seeds, black_if_nan=False):
        images = super().sample(prompts, seeds, black_if_nan)
        images[[seed in self.blank for seed in seeds]] = 77
        return images


class AlwaysBlank(DreamBooth):
    def sample(self, prompts, seeds, black_if_nan=False):
        return super().sample(prompts, seeds, black_if_nan) * 0


def test_images_that_show_nothing_are_drawn_again(base, tmp_path):
    model = generate(base, tmp_path / "made", kind=SometimesBlank)
    generate(base, tmp_path / "without")
    made, without = manifest.read(tmp_path / "made"), manifest.read(tmp_path / "without")
    again = {
        "NV_000001": stream_seed(image_seed(4, 1), Purpose.REDRAWN, 1),
        "MEL_000005": stream_seed(image_seed(4, 5), Purpose.REDRAWN, 2),
    }
    for record, other in zip(made.records, without.records, strict=True):
        seed = again.get(record.image_id, int(other.extra["seed"]))
        assert int(record.extra["seed"]) == seed
        assert (record.sha256 == other.sha256) == (record.image_id not in again)
        pixels = cv2.imread(str(made.path(record)))[:, :, ::-1]
        assert np.abs(pixels.astype(int) - model.sample([record.extra["prompt"]], [seed])[0]).max() <= 1
    assert made.info["redrawn"] == {"MEL": 1, "NV": 1}
    assert without.info["redrawn"] == {}
    assert "were drawn again: MEL 1, NV 1." in (tmp_path / "made/README.md").read_text()


def test_a_set_with_redrawn_images_is_resumed_byte_for_byte(base, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole/made", tmp_path / "broken/made"
    generate(base, whole, kind=SometimesBlank)
    begin(base, broken, monkeypatch, kind=SometimesBlank)
    (broken / "images/MEL_000005.png").unlink()
    (broken / "images/NV_000000.png").unlink()  # NV_000001 is of its batch, and is kept
    generate(base, broken, kind=SometimesBlank)
    assert_same_files(whole, broken)


def test_a_model_that_draws_nothing_ends_the_run_or_is_let_be(base, tmp_path):
    with pytest.raises(InputError, match=r"NV_000000\.png: of one colour in each of 4 draws\. Give a checkpoint"):
        generate(base, tmp_path / "made", kind=AlwaysBlank, redraws=3)
    generate(base, tmp_path / "kept", kind=AlwaysBlank, redraws=0)
    assert len(manifest.read(tmp_path / "kept").records) == 6
    with pytest.raises(InputError, match=r"redraws: -1 must be at least 0"):
        ImageSetWriter(redraws=-1)


def test_class_folders_are_what_imagefolder_opens(base, tmp_path, monkeypatch):
    """torchvision's takes each folder in its root for a class, and every image below it; so does that of datasets."""
    generate(base, tmp_path / "flat")
    begin(base, tmp_path / "made", monkeypatch, class_folders=True)
    (tmp_path / "made/images/MEL/MEL_000004.png").unlink()
    (tmp_path / "made/images/MEL/.MEL_000004.png.part").write_bytes(b"left over")
    generate(base, tmp_path / "made", class_folders=True)
    root = tmp_path / "made/images"
    assert sorted(entry.name for entry in root.iterdir()) == ["MEL", "NV"]
    files = {file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()}
    assert files == {f"{'NV' if i < 3 else 'MEL'}/{'NV' if i < 3 else 'MEL'}_{i:06d}.png" for i in range(6)}
    made, flat = manifest.read(tmp_path / "made"), manifest.read(tmp_path / "flat")
    assert {record.file_name for record in made.records} == {f"images/{file}" for file in files}
    assert [record.sha256 for record in made.records] == [record.sha256 for record in flat.records]
    assert "images/MEL/*" in (tmp_path / "made/README.md").read_text(), "and load_dataset of the set finds them"


def test_a_finished_set_is_not_overwritten(base, tmp_path):
    generate(base, tmp_path / "made")
    with pytest.raises(InputError, match="it holds an image set already"):
        generate(base, tmp_path / "made")


def test_malignancy_classes_have_no_diagnosis(base, tmp_path):
    generate(base, tmp_path / "made", classes=["benign", "malignant"], count={"benign": 1, "malignant": 1})
    assert [(r.diagnosis, r.malignant) for r in manifest.read(tmp_path / "made").records] == [("", 0), ("", 1)]


def test_a_set_without_its_end_is_not_a_set(base, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageSetWriter, "on_predict_end", lambda *a: None)
    generate(base, tmp_path / "made")
    with pytest.raises(InputError, match=r"no metadata\.csv"):
        manifest.read(tmp_path / "made")


def write_recipe(base, folder, count=None, batch_size=1):
    """A `recipe.yaml`, by default of five images."""
    recipe = {
        "trainer": {
            "accelerator": "cpu",
            "precision": "32-true",
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [{"class_path": "callbacks.image_set_writer.ImageSetWriter"}],
        },
        "model": {
            "class_path": "dermsynth.diffusion.dreambooth.DreamBooth",
            "init_args": {"base": base, "sampling": {"steps": 2, "guidance_scale": 2.0}},
        },
        "data": {
            "class_path": "dermsynth.data.loading.generation.GenerationData",
            "init_args": {
                "classes": ["NV", "MEL"],
                "count": count or {"NV": 3, "MEL": 2},
                "batch_size": batch_size,
                "prompt": "a dermoscopic image of {lesion}",
            },
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def test_a_plan_is_read_from_a_recipe(base, tmp_path):
    real = make_set(tmp_path / "real", {"NV": 6, "MEL": 2})
    write_recipe(base, tmp_path)
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    recipe["model"]["init_args"]["sampling"]["guidance_scale"] = [2, 3.5]
    del recipe["data"]["init_args"]["count"]
    texts = [{"text": "a {lesion}", "weight": 2}, {"text": "a photograph of {lesion}"}]
    recipe["data"]["init_args"] |= {"fill_to": 4, "real": str(real), "prompt": texts, "metadata": ["sex"]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    ranks = Ranks(["predict", "--config", "recipe.yaml", "--run", "made"], 1, tmp_path)
    assert ranks.statuses() == [0], ranks.log(0)
    made = manifest.read(tmp_path / "made")
    assert [record.class_name("diagnosis") for record in made.records] == ["MEL"] * 3 + ["NV"]
    assert {r.extra["prompt"] for r in made.records} <= {f"{a} {b}" for a in ("a", "a photograph of") for b in WORDS}
    how = Sampling(2, (2.0, 3.5))
    scales = [f"{how.guidance(int(record.extra['seed'])):g}" for record in made.records]
    assert [record.extra["guidance_scale"] for record in made.records] == scales
    assert len(set(scales)) > 1
    assert made.info["guidance_scale"] == "2 to 3.5"


@pytest.mark.parametrize("name", ["fit.yaml", "checkpoints/last.ckpt"])
def test_no_images_are_written_into_a_trainings_folder(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    trainer, module = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path), LightningModule()
    with pytest.raises(InputError, match=f"--run {tmp_path}: it holds a training run; give another folder"):
        ImageSetWriter().setup(trainer, module, "predict")
    ImageSetWriter().setup(trainer, module, "fit")  # such a training is not stopped


@pytest.mark.slow
def test_two_processes_make_the_images_of_one(base, tmp_path):
    write_recipe(base, tmp_path)
    for count, run in ((1, "a/made"), (2, "b/made")):
        several = ["--trainer.devices", str(count), "--trainer.strategy", "ddp"]
        words = ["predict", "--config", "recipe.yaml", "--run", run, *several]
        ranks = Ranks(words, count, tmp_path, f"made-by-{count}")
        assert ranks.statuses() == [0] * count, ranks.log(0)
    one, two = (manifest.read(tmp_path / run) for run in ("a/made", "b/made"))
    assert one.records == two.records
    assert len(two.records) == 5


@pytest.mark.slow
def test_a_run_that_is_killed_twenty_times_ends_with_the_planned_set(base, tmp_path):
    """At random: while it starts, while it draws, while it writes."""
    write_recipe(base, tmp_path, {"NV": 100, "MEL": 151}, 3)
    words = ["predict", "--config", "recipe.yaml", "--run"]
    assert Ranks([*words, "whole/made"], 1, tmp_path, "whole").statuses() == [0]
    broken, chance = tmp_path / "broken/made", random.Random(5)
    images = broken / "images"
    for number in range(20):
        before = len(list(images.glob("*.png")))
        ranks = Ranks([*words, "broken/made"], 1, tmp_path, f"killed-{number}")
        more = chance.randrange(12)
        while ranks.processes[0].is_alive() and len(list(images.glob("*.png"))) < before + more:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        ranks.send(0, signal.SIGKILL)
        assert ranks.statuses() == [-signal.SIGKILL], "too short to be killed so often"
        assert all(stored(file) for file in images.glob("*.png"))
        assert not (broken / "metadata.csv").exists()
    last = Ranks([*words, "broken/made"], 1, tmp_path, "last")
    assert last.statuses() == [0], last.log(0)
    assert "images are there; resumed" in last.log(0)
    made = manifest.read(broken).records
    assert sorted(int(record.image_id[-6:]) for record in made) == list(range(251))
    assert all(sha256_file(broken / record.file_name) == record.sha256 for record in made)
    assert {file.name for file in images.iterdir()} == {Path(record.file_name).name for record in made}
    # made_from.json, predict.yaml and the lock name the folder and the process.
    for name in ("images", "metadata.csv", "grid.png", "dataset.json"):
        assert made_from.content(broken / name) == made_from.content(tmp_path / "whole/made" / name)


def test_of_two_commands_in_one_folder_one_makes_the_set(base, tmp_path):
    write_recipe(base, tmp_path)
    words = ["predict", "--config", "recipe.yaml", "--run", "made", "--seed_everything"]
    both = [Ranks([*words, str(seed)], 1, tmp_path, f"seed-{seed}") for seed in (0, 1)]
    statuses = [ranks.statuses() for ranks in both]
    assert sorted(statuses) == [[0], [2]], [ranks.log(0) for ranks in both]
    made, refused = statuses.index([0]), statuses.index([2])
    said = both[refused].log(0).splitlines()[-1]
    assert said.startswith("dermsynth: error: --run made: ")
    assert "it holds an image set already" in said or "is at work there" in said
    records = manifest.read(tmp_path / "made").records
    seeds = [image_seed(made, int(record.image_id[-6:])) for record in records]
    assert [int(record.extra["seed"]) for record in records] == seeds
    assert all(sha256_file(tmp_path / "made" / record.file_name) == record.sha256 for record in records)


def test_the_picture_comes_before_the_mark_of_a_complete_set(base, tmp_path, monkeypatch):
    def full(*arguments):
        raise InputError("grid.png: cannot be written")

    monkeypatch.setattr(ImageSetWriter, "_picture", full)
    with pytest.raises(InputError, match=r"grid\.png"):
        generate(base, tmp_path / "made")
    assert not (tmp_path / "made/metadata.csv").exists()


@pytest.mark.parametrize("number", [0, -3])
def test_a_picture_of_no_images_is_refused(number):
    with pytest.raises(InputError, match=rf"ImageSetWriter\.grid_images: {number} must be at least 1"):
        ImageSetWriter(grid_images=number)

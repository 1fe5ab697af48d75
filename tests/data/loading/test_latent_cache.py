"""The cache with an encoder whose moments tell the image and view, and whose embeddings tell the prompt."""

import hashlib
import os
import shutil
import threading
import time
from collections import namedtuple
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open

from dermsynth.data.loading import latent_cache
from dermsynth.data.loading.modules import DreamBoothData
from dermsynth.data.loading.shelf import Shelf
from dermsynth.data.mixing.policies import PriorPreservation
from dermsynth.data.sets import manifest
from dermsynth.data.sets.views import view
from dermsynth.errors import InputError
from tests.builders import CLASSES, make_set
from tests.ranks import RANKS, at_once, rank_here


class Encoders:
    """Moments are the pixels themselves and twice the pixels."""

    def __init__(self, vae="one", text="one"):
        self.vae_sha256, self.text_sha256 = vae, text
        self.encoded, self.embedded, self.released = 0, [], 0

    def moments(self, pixels):
        self.encoded += len(pixels)
        return torch.cat([pixels, 2 * pixels], dim=1)

    def embeddings(self, prompts, device):
        self.embedded += prompts
        return torch.stack([embedding(prompt) for prompt in prompts])

    def release(self):
        self.released += 1


def embedding(prompt):
    numbers = np.frombuffer(hashlib.sha256(prompt.encode()).digest(), np.uint8)
    return torch.from_numpy(numbers.astype(np.float32)).reshape(4, 8)


def alone(encoders):
    strategy = SimpleNamespace(root_device=torch.device("cpu"), broadcast=lambda value, src=0: value)
    return SimpleNamespace(
        global_rank=0,
        world_size=1,
        num_devices=1,
        max_steps=-1,
        max_epochs=None,
        accumulate_grad_batches=1,
        strategy=strategy,
        lightning_module=SimpleNamespace(encoders=encoders) if encoders else SimpleNamespace(),
    )


@pytest.fixture
def sets(tmp_path):
    real = make_set(tmp_path / "real")
    split = manifest.train_split_sha256(manifest.read(real).records)
    return real, make_set(tmp_path / "made", dict.fromkeys(CLASSES, 4), "train", "synthetic", train_split_sha256=split)


@pytest.fixture
def data(sets, tmp_path):
    """Makes a data module for an encoder, which is set up for a stage."""

    def make(encoders, stage="fit", trainer=None, **options):
        real, made = sets
        options = {"batch_size": 4, "mix": PriorPreservation(), "latent_cache": tmp_path / "cache", **options}
        module = DreamBoothData(real=real, synthetic=[made], classes=CLASSES, size=16, **options)
        module.trainer = trainer or alone(encoders)
        module.setup(stage)
        return module

    return make


def views_of(sets, image_id):
    """The eight views of an image as the model sees them, `[8, 3, 16, 16]`."""
    path = next(path for root in sets for path in root.rglob(f"{image_id}.png"))
    rgb = cv2.imread(str(path))[:, :, ::-1].transpose(2, 0, 1)
    return np.stack([view(rgb, number) for number in range(8)]) / 127.5 - 1


def shown(sets, batch):
    """Which view each moment of a batch shows of the image it comes with; fails if it is none of them."""
    numbers = []
    for image_id, moments in zip(batch["image_id"], batch["moments"].float().numpy(), strict=True):
        expected = views_of(sets, image_id)
        apart = np.abs(moments[:3] - expected).max(axis=(1, 2, 3))
        assert apart.min() < 1e-3
        np.testing.assert_allclose(moments[3:], 2 * moments[:3], atol=2e-3)
        numbers.append(int(apart.argmin()))
    return numbers


@pytest.mark.parametrize("workers", [0, 2])
def test_each_moment_comes_with_its_own_image_view_and_prompt(sets, data, workers):
    loader = data(Encoders(), num_workers=workers, metadata=["site"]).train_dataloader()
    plain = data(Encoders(), latent_cache=None, metadata=["site"]).train_dataloader()
    orders, numbers = [], []
    for epoch in range(2):
        for one in (loader, plain):
            one.batch_sampler.set_epoch(epoch)
        batches = list(loader)
        orders.append([image_id for batch in batches for image_id in batch["image_id"]])
        for batch, without in zip(batches, plain, strict=True):
            assert batch["moments"].dtype == torch.float16
            assert "pixel_values" not in batch
            numbers += shown(sets, batch)
            # The same showing without the cache: the same view of the same image with the same words.
            assert batch["image_id"] == without["image_id"]
            assert batch["prompt"] == without["prompt"]
            torch.testing.assert_close(batch["moments"][:, :3].float(), without["pixel_values"], atol=1e-3, rtol=0)
            for prompt, embeds, label, image_id in zip(
                batch["prompt"], batch["prompt_embeds"], batch["label"], batch["image_id"], strict=True
            ):
                assert torch.equal(embeds, embedding(prompt))
                assert {"NV": "nevus", "MEL": "melanoma", "SK": "seborrheic"}[CLASSES[label]] in prompt
                assert CLASSES[label] in image_id
            assert torch.equal(batch["empty_embeds"], embedding(""))
    assert orders[0] != orders[1]
    assert set(numbers) == set(range(8))


def test_two_processes_fill_it_together_and_see_every_image(sets, data):
    encoders = [Encoders(), Encoders()]

    def work(trainer):
        trainer.lightning_module = SimpleNamespace(encoders=encoders[rank_here()])
        module = data(None, trainer=trainer, batch_size=2)
        held_out = list(module.val_dataloader())
        return held_out, list(module.train_dataloader())

    results = at_once(work)
    assert [e.encoded for e in encoders] == [6 * 1 // 2 + 24 * 8 // 2] * 2
    assert [e.released for e in encoders] == [1, 1]
    assert len({*encoders[0].embedded, *encoders[1].embedded}) == len(encoders[0].embedded + encoders[1].embedded) == 7
    for part, count in ((0, 6), (1, 24)):
        batches = [batch for result in results for batch in result[part]]
        for batch in batches:
            numbers = shown(sets, batch)
            assert part or set(numbers) == {0}  # held-out images are shown as they are
        seen = [image_id for batch in batches for image_id in batch["image_id"]]
        real = {i for i in seen if i.startswith("r_")}
        assert len(seen) == count
        assert len(real) == (6 if part == 0 else 12)


@pytest.mark.parametrize(
    ("length", "shown"),
    [
        ({"max_steps": 23, "accumulate_grad_batches": 2}, "184"),  # batches of 4
        ({"max_steps": 25, "accumulate_grad_batches": 2}, None),
        ({"max_epochs": 8}, "192"),  # of 24
        ({"max_epochs": 9}, None),
        ({"max_steps": 24, "max_epochs": 9}, "96"),
        ({}, None),
    ],
)
def test_more_views_than_the_run_shows_images_are_said_before_they_are_encoded(data, capsys, length, shown):
    encoders = Encoders()
    trainer = alone(encoders)
    vars(trainer).update(length)
    data(encoders, trainer=trainer).train_dataloader()
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("data.latent_cache")]
    views = 24 * 8 + 6
    assert [f"{views} views" in line and f"shows {shown} images" in line for line in said] == [True] * bool(shown)
    data(encoders, trainer=trainer).train_dataloader()
    assert "data.latent_cache" not in capsys.readouterr().out  # nothing is left to encode


def test_runs_share_what_they_have_in_common(data):
    first = Encoders()
    data(first, augmentation="none", mix=None).train_dataloader()
    assert first.encoded == 12 + 12 + 6
    assert len(first.embedded) == 7
    same, more = Encoders(), Encoders()
    data(same, augmentation="none", mix=None, batch_size=2).train_dataloader()
    assert (same.encoded, same.embedded, same.released) == (0, [], 0)
    data(more, augmentation="dihedral", mix=None, instance_prompt={"MEL": "a black spot"}).train_dataloader()
    assert more.encoded == 24 * 7
    assert more.embedded == ["a black spot"]


@pytest.mark.parametrize(
    ("change", "encoded", "embedded"),
    [
        ({"vae": "two"}, 6, 0),
        ({"text": "two"}, 0, 4),
        ({"text": None}, 0, 0),
    ],
)
def test_another_model_is_noticed(data, change, encoded, embedded):
    data(Encoders(), "validate").val_dataloader()
    other = Encoders(**change)
    batch = next(iter(data(other, "validate").val_dataloader()))
    assert (other.encoded, len(other.embedded)) == (encoded, embedded)
    assert ("prompt_embeds" in batch) == ("empty_embeds" in batch) == (other.text_sha256 is not None)


def test_another_size_or_content_is_noticed(sets, data):
    data(Encoders(), "validate").val_dataloader()
    images = manifest.read(sets[0])
    name = next(r.image_id for r in images.records if r.split == "val")
    path = sets[0] / f"images/{name}.png"
    cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    records = [replace(r, sha256=manifest.sha256_file(path)) if r.image_id == name else r for r in images.records]
    manifest.write(sets[0], records, {})
    again = Encoders()
    for batch in data(again, "validate").val_dataloader():
        shown(sets, batch)
    assert again.encoded == 1


def test_an_image_that_is_not_the_one_of_its_row_is_refused(sets, data):
    path = next(sets[0].glob("images/r_NV_002.png"))
    cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    with pytest.raises(InputError, match=r"r_NV_002\.png: it is not the image of its row in metadata\.csv"):
        data(Encoders()).train_dataloader()


def test_images_are_read_while_those_before_are_encoded(data, monkeypatch):
    read, begun = latent_cache.read_rgb, []
    monkeypatch.setattr(latent_cache, "read_rgb", lambda path: (begun.append(path), read(path))[1])

    class Waiting(Encoders):
        def moments(self, pixels):
            until = time.monotonic() + 120
            while len(begun) < 16 and time.monotonic() < until:
                time.sleep(0.01)
            assert len(begun) >= 16, "of the second eight images none was read"
            return super().moments(pixels)

    data(Waiting()).train_dataloader()
    assert len(begun) == 24 + 6


def test_a_filling_that_was_stopped_goes_on_where_it_was(sets, data, monkeypatch):
    monkeypatch.setattr(latent_cache, "_IN_A_FILE", 5)

    class Stopping(Encoders):
        def moments(self, pixels):
            if self.encoded >= 12 * 8:  # in the third file of five images
                raise KeyboardInterrupt
            return super().moments(pixels)

    first, second = Stopping(), Encoders()
    with pytest.raises(KeyboardInterrupt):
        data(first).train_dataloader()
    loader = data(second).train_dataloader()
    assert first.encoded + second.encoded - (24 * 8 + 6) == 2 * 8  # two images of the third file were lost
    assert not set(first.embedded) & set(second.embedded)
    for batch in loader:
        shown(sets, batch)


def test_what_a_killed_filling_left_is_deleted_and_that_of_a_running_one_is_not(data, tmp_path):
    data(Encoders(), "validate").val_dataloader()
    shelves = sorted(tmp_path.glob("cache/*-*"))
    assert len(shelves) == 2
    old, young = ([shelf / f".{age}.safetensors.0123.part" for shelf in shelves] for age in ("old", "young"))
    for path in old + young:
        path.write_bytes(b"")
    for path in old:
        os.utime(path, (time.time() - 4000,) * 2)
    data(Encoders(), "validate").val_dataloader()  # nothing is missing
    assert sorted(tmp_path.glob("cache/*/.*.part")) == young


def test_where_one_process_fails_all_say_why_and_none_waits(data, tmp_path):
    def work(trainer):
        class Failing(Encoders):
            def moments(self, pixels):
                if rank_here() == 1:
                    raise InputError("the disk is full")
                return super().moments(pixels)

        trainer.lightning_module = SimpleNamespace(encoders=Failing())
        data(None, trainer=trainer, batch_size=2).train_dataloader()

    errors = at_once(work)
    assert [(type(error), str(error)) for error in errors] == [(InputError, "the disk is full")] * RANKS
    again = Encoders()
    data(again).train_dataloader()
    assert again.encoded == (24 * 8 + 6) // 2  # the other process's share was kept


def test_a_process_stops_when_another_failed_before_it_has_done_its_whole_share(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(latent_cache, "_IN_A_FILE", 2)
    begun, told = threading.Event(), []

    class Failing(Encoders):
        def moments(self, pixels):
            if rank_here() == 1:
                begun.wait(120)
                raise InputError("the disk is full")
            begun.set()
            until = time.monotonic() + 120
            while not told and time.monotonic() < until:
                told.extend(tmp_path.glob("cache/.failed-*"))
            return super().moments(pixels)

    encoders = [Failing(), Failing()]

    def work(trainer):
        trainer.lightning_module = SimpleNamespace(encoders=encoders[rank_here()])
        data(None, trainer=trainer, batch_size=2).train_dataloader()

    errors = at_once(work)
    assert [(type(error), str(error)) for error in errors] == [(InputError, "the disk is full")] * RANKS
    assert encoders[0].encoded == 2 * 8  # of a share of 99
    assert "process 1 failed: the disk is full" in capsys.readouterr().err
    assert not list(tmp_path.glob("cache/.failed-*"))


def test_what_the_others_wrote_may_be_seen_later(data, monkeypatch):
    """As on NFS, which may list what it knew a minute ago."""
    monkeypatch.setattr(latent_cache, "_LOOK_AGAIN", 0.01)
    missing, looks = Shelf.missing, []

    def late(shelf, names):
        if rank_here() == 1 and len(looks) < 5:
            looks.append(names)
            return list(names)
        return missing(shelf, names)

    monkeypatch.setattr(Shelf, "missing", late)

    def work(trainer):
        trainer.lightning_module = SimpleNamespace(encoders=Encoders())
        return len(list(data(None, trainer=trainer, batch_size=2).train_dataloader()))

    assert at_once(work) == [6, 6]
    assert len(looks) == 5


def test_processes_that_do_not_see_one_folder_are_told(data, tmp_path, monkeypatch):
    monkeypatch.setattr(latent_cache, "_SEEN_WITHIN", 0)
    monkeypatch.setattr(latent_cache, "_LOOK_AGAIN", 0)

    def work(trainer):
        trainer.lightning_module = SimpleNamespace(encoders=Encoders())
        data(None, trainer=trainer, batch_size=2, latent_cache=tmp_path / f"{rank_here()}").train_dataloader()

    errors = at_once(work)
    assert all("Give a folder on a disk that all machines share" in str(error) for error in errors)


def test_a_cache_that_was_deleted_meanwhile_is_said(data, tmp_path):
    module = data(Encoders())
    module.train_dataloader()
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(InputError, match=r"data\.latent_cache: .* lost 6 of 6 entries"):
        module.val_dataloader()


def test_a_small_disk_is_said(data, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1000))
    with pytest.raises(InputError, match=r"data\.latent_cache: .*has 0\.0 GB left"):
        data(Encoders()).train_dataloader()


def test_the_centre_of_a_long_image_is_kept(tmp_path):
    wide = make_set(tmp_path / "wide", {"NV": 4})
    images = manifest.read(wide)
    for record in images.records:
        pixels = np.random.default_rng(len(record.image_id + record.split)).integers(0, 256, (16, 24, 3), np.uint8)
        cv2.imwrite(str(images.path(record)), pixels)
        if record.split == "val":
            shown = pixels
    records = [replace(r, width=24, sha256=manifest.sha256_file(images.path(r))) for r in images.records]
    manifest.write(wide, records, {})
    module = DreamBoothData(real=wide, classes=["NV"], size=16, batch_size=1, latent_cache=tmp_path / "cache")
    module.trainer = alone(Encoders())
    module.setup("validate")
    (batch,) = module.val_dataloader()
    expected = torch.from_numpy(shown[:, 4:20, ::-1].transpose(2, 0, 1) / 127.5 - 1)
    torch.testing.assert_close(batch["moments"][0, :3].double(), expected, atol=1e-3, rtol=0)


def test_it_takes_two_bytes_a_number_and_names_its_entries(data, tmp_path):
    module = data(Encoders(), "validate")
    module.val_dataloader()
    (file,) = tmp_path.glob("cache/moments-16px-*/*.safetensors")
    with safe_open(file, "pt") as content:
        assert content.get_slice("values").get_shape() == [6, 6, 16, 16]
        assert content.get_slice("values").get_dtype() == "F16"
    assert file.stat().st_size < 6 * 6 * 16 * 16 * 2 + 1500


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augmentation": "standard"}, r"data\.latent_cache: .*augmentation standard"),
        ({"pixel_cache": "pixels"}, r"data\.pixel_cache: with data\.latent_cache"),
    ],
)
def test_what_it_cannot_hold_or_does_not_need_is_refused(data, options, message):
    with pytest.raises(InputError, match=message):
        data(Encoders(), **options)


def test_a_model_without_an_encoder_is_told(data):
    with pytest.raises(InputError, match=r"data\.latent_cache: this model has no frozen autoencoder"):
        data(None).train_dataloader()

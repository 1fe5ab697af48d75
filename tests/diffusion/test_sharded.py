"""DreamBooth with its weights spread over two processes (FSDP2) does what it does on one, and resumes."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from dermsynth.data.sets import manifest
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.speed import compile_blocks, shard, whole
from dermsynth.run.folder import FINISHED, last_checkpoint
from tests.builders import CLASSES, make_set
from tests.processes import TIMEOUT, Ranks, start

CONFIGS = Path(__file__).parents[2] / "configs"
FSDP = {
    "class_path": "lightning.pytorch.strategies.ModelParallelStrategy",
    "init_args": {"data_parallel_size": 2, "tensor_parallel_size": 1, "save_distributed_checkpoint": False},
}
# Of three pictures in batches of one the first process has two.
GENERATION = {
    "class_path": "dermsynth.data.loading.generation.GenerationData",
    "init_args": {"classes": CLASSES, "count": 1, "batch_size": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("spread")
    # Five images to validate: in batches of two the first of two processes has one batch more.
    make_set(root / "real", {"NV": 8, "MEL": 8, "SK": 6})
    split = manifest.train_split_sha256(manifest.read(root / "real").records)
    make_set(root / "prior", dict.fromkeys(CLASSES, 4), "train", "synthetic", train_split_sha256=split)
    return root


@pytest.fixture(scope="module")
def run(base, folder):
    """Runs a stage on two processes, or one; how each ended, and what the first printed."""

    def run(name, *words, stage="fit", processes=2, data=None, model=None, **trainer):
        config = {
            "trainer": {
                "accelerator": "cpu",
                "precision": "32-true",
                "devices": processes,
                "strategy": FSDP if processes > 1 else "auto",
                "max_epochs": -1,
                "max_steps": 6,
                "val_check_interval": 3,
                "check_val_every_n_epoch": None,
                "gradient_clip_val": 0.5,
                "log_every_n_steps": 1,
                **trainer,
            },
            "model": {
                "class_path": "dermsynth.diffusion.dreambooth.DreamBooth",
                # Adam's ε is large, so that it does not make much of differences that are rounding.
                "init_args": {
                    "base": base,
                    "train_text_encoder": True,
                    "sampling": {"steps": 2},
                    "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-2, "eps": 1e-2}},
                    **(model or {}),
                },
            },
            "data": data
            or {
                "class_path": "dermsynth.data.loading.modules.DreamBoothData",
                "init_args": {"real": "real", "size": 16, "classes": CLASSES, "batch_size": 4 // processes},
            },
        }
        (folder / f"{name}.json").write_text(json.dumps(config))
        ranks = Ranks([stage, "--config", f"{name}.json", *words, "--run", name], processes, folder, name)
        return ranks.statuses(TIMEOUT), ranks.log(0)

    return run


@pytest.fixture(scope="module")
def runs(run, folder):
    """The folders of a training on one process, on two, and on two with a stop in the middle."""
    names = ["alone", "spread", "stopped"]
    # One picture, so that the second process draws none.
    grid = {
        "class_path": "callbacks.sample_grid.SampleGrid",
        "init_args": {"prompts": ["a mole"], "columns": 1, "every_n_steps": 3},
    }
    for name, processes, steps in zip(names, (1, 2, 2), (6, 6, 3), strict=True):
        statuses, said = run(name, processes=processes, max_steps=steps, callbacks=[grid])
        assert statuses == [0] * processes, said
    # As a run that was stopped after three of six steps would lie there.
    (folder / names[2] / FINISHED).unlink()
    file = folder / names[2] / "fit.yaml"
    file.write_text(file.read_text().replace("max_steps: 3", "max_steps: 6"))
    statuses, said = run(names[2], callbacks=[grid])
    assert statuses == [0, 0], said
    return [folder / name for name in names]


def assert_alike(expected, found):
    """Pictures differ by rounding at most: in another batch a pixel may be another level."""
    for one, other in zip(expected, found, strict=True):
        levels = [np.asarray(Image.open(file)).astype(int) for file in (one, other)]
        assert abs(levels[0] - levels[1]).max() <= 1


@pytest.mark.slow
def test_training_ends_as_on_one_process_also_when_it_goes_on(runs):
    alone, spread, stopped = (torch.load(last_checkpoint(run), weights_only=True)["state_dict"] for run in runs)
    assert alone.keys() == spread.keys() == stopped.keys()
    for name, weight in alone.items():
        torch.testing.assert_close(spread[name], weight, rtol=1e-4, atol=1e-6, msg=name)
        assert torch.equal(stopped[name], spread[name]), name


@pytest.mark.slow
def test_validation_and_pictures_are_those_of_one_process(runs):
    alone, spread = (EventAccumulator(str(run)).Reload() for run in runs[:2])
    losses = [tag for tag in alone.Tags()["scalars"] if tag.startswith("val/")]
    assert len(losses) == 2 + len(CLASSES)
    for tag in losses:
        expected = {event.step: event.value for event in alone.Scalars(tag)}
        assert {event.step: event.value for event in spread.Scalars(tag)} == pytest.approx(expected, rel=1e-4), tag
    pictures = [[io.BytesIO(e.encoded_image_string) for e in board.Images("samples")] for board in (alone, spread)]
    assert len(pictures[0]) == 3
    assert_alike(*pictures)


@pytest.mark.slow
def test_generated_images_are_those_of_one_process(run, runs, folder):
    words = ["--ckpt_path", str(last_checkpoint(runs[0]))]
    options = {"stage": "predict", "data": GENERATION}
    writer = {"class_path": "callbacks.image_set_writer.ImageSetWriter"}
    made = []
    for processes in (1, 2):
        name = f"made-{processes}"
        statuses, said = run(name, *words, processes=processes, callbacks=[writer], **options)
        assert statuses == [0] * processes, said
        images = manifest.read(folder / name)
        made.append([images.path(record) for record in images.records])
    assert len(made[0]) == len(CLASSES)
    assert_alike(*made)


def evaluate_and_train(rank, base, folder):
    """One process of two: the second alone runs the UNet, and then both train."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    alone, spread = DreamBooth(base).unet, DreamBooth(base).unet
    shard(spread, mesh)
    compile_blocks(spread)
    block = next(m for m in spread.modules() if isinstance(m, BasicTransformerBlock))
    batch = torch.ones(1, 4, 8, 8), torch.zeros(1, dtype=torch.int64), torch.ones(1, 77, 16)
    with torch.inference_mode(), whole(spread):  # as Lightning evaluates on GPUs, not where processes talk by gloo
        assert not any(isinstance(p, DTensor) for p in spread.parameters())
        for _ in range(rank):
            assert torch.equal(spread(*batch).sample, alone(*batch).sample)
    assert all(isinstance(p, DTensor) for p in spread.parameters())
    with torch.compiler.set_stance(force_backend="eager"):
        loss = spread(*batch).sample.square().mean()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"]
    # Blocks let go of what they have collected after their forward pass, the rest after the backward pass.
    assert all(isinstance(p, DTensor) for p in block.parameters())
    assert not isinstance(spread.conv_in.weight, DTensor)
    loss.backward()
    alone(*batch).sample.square().mean().backward()
    gradients = dict(alone.named_parameters())
    for name, p in spread.named_parameters():
        torch.testing.assert_close(p.grad.full_tensor(), gradients[name].grad, rtol=1e-4, atol=1e-6, msg=name)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_what_was_whole_for_an_evaluation_is_spread_again(base, tmp_path):
    processes = start(evaluate_and_train, 2, base, tmp_path)
    for process in processes:
        process.join(TIMEOUT)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["dreambooth_sd15.yaml", "dreambooth_sd15_lora.yaml"])
def test_the_overlay_trains_its_recipes(base, folder, recipe):
    """Each as it is, but for its size and the number of processes."""
    small = {
        "trainer": {
            "accelerator": "cpu",
            "precision": "32-true",
            "devices": 2,
            "max_steps": 2,
            "val_check_interval": 1,
            "log_every_n_steps": 1,
            "strategy": {"init_args": {"data_parallel_size": 2}},
        },
        "model": {
            "init_args": {
                "base": base,
                "sampling": {"steps": 1},
                "lr_scheduler": {"init_args": {"warmup_steps": 1, "total_steps": 2}},
            }
        },
        "data": {
            "init_args": {"real": "real", "synthetic": ["prior"], "size": 16, "batch_size": 2, "num_workers": 0},
        },
    }
    name = Path(recipe).stem
    (folder / f"{name}.json").write_text(json.dumps(small))
    files = [CONFIGS / recipe, CONFIGS / "overlays/fsdp.yaml", f"{name}.json"]
    words = [word for file in files for word in ("--config", str(file))]
    ranks = Ranks(["fit", *words, "--run", name], 2, folder, name)
    assert ranks.statuses(TIMEOUT) == [0, 0], ranks.log(0)
    checkpoint = torch.load(last_checkpoint(folder / name), weights_only=True)
    assert checkpoint["global_step"] == 2
    assert checkpoint["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "refused-mesh",
            {"strategy": {**FSDP, "init_args": {}}},
            "give data_parallel_size the number of all devices",
        ),
        ("refused-average", {"callbacks": [{"class_path": "callbacks.ema.EMA"}]}, "cannot average weights"),
        ("refused-order", {"model": {"channels_last": True}}, "Add --model.channels_last false"),
    ],
)
def test_what_cannot_be_spread_is_refused(run, name, changes, message):
    statuses, said = run(name, **changes)
    assert statuses == [2, 2], said
    assert message in said

"""DreamBooth with the UNet spread over two processes (FSDP2) trains as it does on DDP, and goes on."""

import json

import pytest
import torch

from dermsynth.run_folder import FINISHED, last_checkpoint
from tests.builders import CLASSES, make_set
from tests.processes import TIMEOUT, Ranks

FSDP = {
    "class_path": "lightning.pytorch.strategies.ModelParallelStrategy",
    "init_args": {"data_parallel_size": 2, "tensor_parallel_size": 1, "save_distributed_checkpoint": False},
}


@pytest.fixture
def train(base, tmp_path):
    make_set(tmp_path / "real")

    def run(strategy, name, steps, **trainer):
        config = {
            "trainer": {
                "accelerator": "cpu",
                "devices": 2,
                "strategy": strategy,
                "max_epochs": -1,
                "max_steps": steps,
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
                    "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-2, "eps": 1e-2}},
                },
            },
            "data": {
                "class_path": "dermsynth.data.modules.DreamBoothData",
                "init_args": {"real": "real", "size": 16, "classes": CLASSES, "batch_size": 2},
            },
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        ranks = Ranks(["fit", "--config", "config.json", "--run", name], 2, tmp_path, name)
        return ranks.statuses(TIMEOUT), ranks.log(0)

    return run


@pytest.mark.slow
def test_it_ends_as_on_ddp_also_when_it_goes_on(train, tmp_path):
    for strategy, name in (("ddp", "whole"), (FSDP, "spread")):
        statuses, said = train(strategy, name, 6)
        assert statuses == [0, 0], said
    statuses, said = train(FSDP, "stopped", 3)
    assert statuses == [0, 0], said
    # As a run that was stopped after three of six steps would lie there.
    (tmp_path / "stopped" / FINISHED).unlink()
    file = tmp_path / "stopped" / "fit.yaml"
    file.write_text(file.read_text().replace("max_steps: 3", "max_steps: 6"))
    statuses, said = train(FSDP, "stopped", 6)
    assert statuses == [0, 0], said
    weights = [
        torch.load(last_checkpoint(tmp_path / name), weights_only=True)["state_dict"]
        for name in ("whole", "spread", "stopped")
    ]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-6, msg=name)
        assert torch.equal(weights[2][name], weights[1][name]), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": {**FSDP, "init_args": {}}}, "give data_parallel_size the number of all devices"),
        ({"callbacks": [{"class_path": "callbacks.ema.EMA"}]}, "cannot average weights that are spread"),
    ],
)
def test_what_cannot_be_spread_is_refused(train, changes, message):
    statuses, said = train(changes.pop("strategy", FSDP), "refused", 3, **changes)
    assert statuses == [2, 2], said
    assert message in said

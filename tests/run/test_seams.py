"""What a run does with Lightning's insides; each test fails without the seam."""

import signal
from pathlib import Path

import lightning as L
import torch
import yaml
from torch.utils.data import DataLoader

from dermsynth.cli import main
from dermsynth.data.mixing.sampler import ResumableLoader, TrainSampler
from dermsynth.run.configuration import read_configuration
from dermsynth.run.seams import replace_signal_handlers
from tests.line import checkpoint, fit
from tests.processes import Ranks

RECIPE = """\
trainer:
  accelerator: cpu
  precision: 32-true
  devices: 2
  strategy: ddp
  max_steps: 3
  logger: false
  enable_progress_bar: false
  num_sanity_val_steps: 0
  callbacks: [{class_path: toy.Broadcasts}]
model: {class_path: toy.Line}
data: {class_path: toy.Data}
"""


def test_a_checkpoints_hyperparameters_change_no_configuration(here):
    assert fit() == 0
    torch.save({**checkpoint("r/checkpoints/best.ckpt"), "hyper_parameters": {"lr": 0.5}}, "r/checkpoints/other.ckpt")
    assert main(["test", "--config", "r/fit.yaml", "--ckpt_path", "r/checkpoints/other.ckpt"]) == 0
    assert yaml.safe_load(Path("r/test.yaml").read_text())["model"]["init_args"]["lr"] == 0.01


def test_to_read_a_configuration_seeds_nothing_and_runs_nothing(here):
    before = torch.get_rng_state()
    assert read_configuration("fit", ["--config", "line.yaml", "--run", "r"])["seed_everything"] == 0
    assert torch.equal(torch.get_rng_state(), before)
    assert not Path("r").exists()


def test_no_batch_asks_rank_0_for_a_signal(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    ranks = Ranks(["fit", "--config", "recipe.yaml", "--run", "run"], 2, tmp_path)
    assert ranks.statuses() == [0, 0], ranks.log(0)
    assert [(tmp_path / f"run/broadcasts-{rank}").read_text() for rank in (0, 1)] == ["0", "0"]


class Epochs(L.LightningModule):
    """Notes the records that each epoch showed."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.shown = {}

    def training_step(self, batch, index):
        self.shown.setdefault(self.current_epoch, []).extend(batch.tolist())
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Numbers:
    def __getitem__(self, draw):
        return draw.record

    def __len__(self):
        return 4


def test_lightning_puts_back_the_handlers_of_before():
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    before = signal.getsignal(signal.SIGUSR1)
    replace_signal_handlers(trainer, lambda: {signal.SIGUSR1: signal.signal(signal.SIGUSR1, signal.SIG_IGN)})
    trainer.fit(Epochs(), DataLoader(range(2)))
    try:
        assert signal.getsignal(signal.SIGUSR1) == before != signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_each_epoch_is_dealt_as_its_own():
    orders = [torch.tensor(order).numpy() for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0])]
    sampler = TrainSampler(lambda epoch: orders[epoch], 4, 2, 0, 1, seed=0)
    loader: DataLoader = ResumableLoader(Numbers(), batch_sampler=sampler)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    module = Epochs()
    trainer.fit(module, loader)
    assert module.shown == {epoch: order.tolist() for epoch, order in enumerate(orders)}


def test_a_loggers_missing_package_is_named(here, capsys):
    assert fit("--trainer.logger", "lightning.pytorch.loggers.CometLogger") == 2
    said = capsys.readouterr().err
    assert "a package is missing: " in said
    assert "comet" in said


def test_a_step_beyond_the_largest_number_is_said_of_the_optimizer(here, capsys):
    assert fit("--trainer.precision", "16-true", "--model.lr", "1e30") == 2
    assert "model.optimizer: a step is beyond the largest number of its type" in capsys.readouterr().err

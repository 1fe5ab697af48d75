import copy

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from callbacks.ema import EMA
from dermsynth.errors import InputError


class Drift(LightningModule):
    """A weight that moves by the same amount at every step, beside a frozen one."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.frozen = torch.nn.Parameter(torch.tensor([0.1]), requires_grad=False)
        self.path = []

    def training_step(self, batch, batch_idx):
        return -self.weight.sum()

    def on_before_zero_grad(self, optimizer):
        self.path.append(float(self.weight.detach()))

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=0.5)


@pytest.mark.parametrize("decay", [0.2, 0.999])
def test_the_average_is_that_of_the_formula_and_replaces_the_weights_at_the_end(decay):
    model = Drift()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=6,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[EMA(decay)],
    )
    trainer.fit(model, DataLoader(range(6), batch_size=1))
    expected = 0.5  # the first update copies the weight after the first step
    for update, weight in enumerate([1.0, 1.5, 2.0, 2.5, 3.0], start=1):
        keep = min(decay, (1 + update) / (10 + update))
        expected = keep * expected + (1 - keep) * weight
    assert float(model.weight) == pytest.approx(expected, rel=1e-6)
    assert float(model.frozen) == float(torch.tensor(0.1))
    average = trainer.callbacks[0].average.module
    assert average.frozen.data_ptr() == model.frozen.data_ptr()
    assert average.weight.data_ptr() != model.weight.data_ptr()


def test_optimizer_steps_are_averaged_and_no_other_batches():
    average = EMA()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=3,
        accumulate_grad_batches=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[average],
    )
    trainer.fit(Drift(), DataLoader(range(6), batch_size=1))
    assert int(average.average.n_averaged) == trainer.global_step == 3
    # As a checkpoint keeps it.
    assert average.state_dict() == {"latest_update_step": 3}


class Shares(Callback):
    """Notes, before the model is moved to its device, whether its average has its weights."""

    def setup(self, trainer, pl_module, stage):
        average = trainer.callbacks[0].average.module
        self.found = (average.frozen is pl_module.frozen, average.weight is pl_module.weight)


def test_frozen_weights_are_not_copied_not_even_on_the_way_to_the_device():
    shares, model = Shares(), Drift()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[EMA(), shares],
    )
    trainer.fit(model, DataLoader(range(6), batch_size=1))
    assert shares.found == (True, False)
    # A copy that is made later is one.
    assert copy.deepcopy(model).frozen is not model.frozen


def test_weights_in_half_precision_are_refused():
    trainer = Trainer(accelerator="cpu", precision="bf16-true", logger=False, callbacks=[EMA()], max_steps=1)
    with pytest.raises(InputError, match=r"trainer\.precision: bf16-true would round"):
        trainer.fit(Drift(), DataLoader(range(6), batch_size=1))

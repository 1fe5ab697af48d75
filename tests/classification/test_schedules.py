import functools
import math

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch.utils.data import DataLoader

from dermsynth.errors import InputError
from dermsynth.run.checkpoints import optimizer_config
from dermsynth.run.schedules import WarmupCosine


def rates(steps, **kwargs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = WarmupCosine(optimizer, **kwargs)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found, schedule


def test_rises_linearly_then_falls_as_half_a_cosine_and_stays():
    found, _ = rates(14, warmup_steps=4, total_steps=12, floor=0.1)
    rise = [0.5, 1.0, 1.5, 2.0]
    fall = [2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * k / 8))) for k in range(9)]
    assert found == pytest.approx([*rise, *fall, 0.2])


def test_no_warm_up_starts_at_the_full_rate():
    assert rates(1, warmup_steps=0, total_steps=5)[0] == [2.0]


def test_a_longer_configuration_governs_a_resumed_run():
    _, short = rates(3, warmup_steps=0, total_steps=4)
    state = short.state_dict()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    longer = WarmupCosine(optimizer, warmup_steps=0, total_steps=8)
    longer.load_state_dict(state)
    optimizer.step()
    longer.step()
    assert longer.last_epoch == 4
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"warmup_steps": 5}, r"lr_scheduler\.warmup_steps: 5 must be below the steps of the whole run, 5"),
        ({"warmup_steps": -1}, r"lr_scheduler\.warmup_steps: -1 must be at least 0"),
        ({"warmup_steps": 0, "floor": 2.0}, r"lr_scheduler\.floor: 2\.0"),
    ],
)
def test_impossible_numbers_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        rates(1, total_steps=5, **wrong)


class Line(lightning.LightningModule):
    """One weight, whose learning rates it notes."""

    def __init__(self, **schedule):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.schedule, self.rates = schedule, []

    def training_step(self, batch, index):
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return (self.weight * batch).sum()

    def configure_optimizers(self):
        schedule = functools.partial(WarmupCosine, **self.schedule)
        return optimizer_config(self, lambda p: torch.optim.SGD(p, lr=2.0), [self.weight], schedule)


def fit(module, batches=4, keeps=True, **trainer):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    # That saves nothing, and yet makes it more than a trial.
    kept = {"callbacks": [Checkpoint()]} if keeps else {"enable_checkpointing": False}
    trainer = lightning.Trainer(accelerator="cpu", **kept, **quiet, **trainer)
    trainer.fit(module, DataLoader(torch.ones(batches, 1)))
    return module.rates


@pytest.mark.parametrize("length", [{"max_steps": 6}, {"max_epochs": 3, "accumulate_grad_batches": 2}])
@pytest.mark.parametrize("warmup", [0, 2])
def test_without_a_length_of_its_own_it_is_as_long_as_the_training(length, warmup):
    told = fit(Line(warmup_steps=warmup, total_steps=6, floor=0.1), **length)
    assert fit(Line(warmup_steps=warmup, floor=0.1), **length) == told
    assert len(set(told)) >= 5


def test_a_length_of_its_own_is_honoured():
    assert fit(Line(warmup_steps=0, total_steps=12), max_steps=6)[-1] > 1.0  # half way down at step 6


def test_a_length_that_cannot_be_known_is_refused():
    with pytest.raises(InputError, match=r"total_steps: how long the training is cannot be known"):
        fit(Line(warmup_steps=0), max_epochs=-1, max_steps=-1)
    with pytest.raises(InputError, match=r"warmup_steps: 6 must be below the steps of the whole run, 6"):
        fit(Line(warmup_steps=6), max_steps=6)


def test_a_trial_may_end_before_the_warm_up_does():
    assert fit(Line(warmup_steps=6), keeps=False, max_steps=2) == pytest.approx([2 / 6, 4 / 6])
    assert fit(Line(warmup_steps=6), fast_dev_run=True) == pytest.approx([2 / 6])


def test_a_schedule_that_nobody_tells_its_length_is_refused_when_it_needs_it():
    with pytest.raises(InputError, match=r"total_steps: it must be given"):
        rates(3, warmup_steps=1)


def test_a_checkpoint_holds_where_it_stood_and_not_what_it_is():
    assert set(rates(1, warmup_steps=0, total_steps=5)[1].state_dict()) == set(
        torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD([torch.zeros(1)], lr=1), lambda step: 1.0).state_dict()
    )

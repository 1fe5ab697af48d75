import math

import pytest
import torch

from dermsynth.errors import InputError
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
        ({"warmup_steps": 5}, r"lr_scheduler\.warmup_steps: 5 must .* below model\.lr_scheduler\.total_steps, 5"),
        ({"warmup_steps": -1}, r"lr_scheduler\.warmup_steps: -1 must be at least 0"),
        ({"warmup_steps": 0, "floor": 2.0}, r"lr_scheduler\.floor: 2\.0"),
    ],
)
def test_impossible_numbers_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        rates(1, total_steps=5, **wrong)

"""One of several processes fails: none waits for it, each ends with a status that says so, and a log has the cause."""

import pytest

from tests.processes import Ranks

RECIPE = """\
trainer:
  accelerator: cpu
  precision: 32-true
  devices: 2
  strategy: ddp
  max_steps: 1000
  enable_progress_bar: false
  callbacks: [{class_path: toy.Fails, init_args: {rank: RANK, how: HOW}}, {class_path: callbacks.preemption.Preemption}]
model: {class_path: toy.Line}
data: {class_path: toy.Data}
"""
SAID = {
    "exception": "RuntimeError: the cause",
    "memory": "DefaultCPUAllocator: can't allocate memory",
    "killed": "onnection",
}


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", SAID)
def test_no_rank_waits_for_one_that_fails(tmp_path, how, rank):
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("RANK", str(rank)).replace("HOW", how))
    ranks = Ranks(["fit", "--config", "recipe.yaml", "--run", "run"], 2, tmp_path)
    statuses = ranks.statuses()
    assert statuses is not None, ranks.log(0) + ranks.log(1)
    assert 0 not in statuses
    # Of a process that was killed only the others can tell: its connection is closed.
    assert SAID[how] in ranks.log(rank if how != "killed" else 1 - rank)

"""One and two nodes with one and two tasks each: one training in every layout; one that cannot be is refused."""

import re

import pytest
import torch
import yaml

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

LAYOUTS = [(1, 1), (1, 2), (2, 1), (2, 2)]
#: Of a fit of 4 steps from the same start, in float32: sums in another order.
TOLERANCE = 1e-5


def fit(slurm, model, nodes, tasks):
    """Submit a training whose global batch has four images."""
    name, run = f"{model} {nodes}x{tasks}", f"runs/{model} {nodes}x{tasks}"
    layout = [f"--nodes={nodes}", f"--ntasks-per-node={tasks}", f"--gpus-per-node={tasks}", f"--job-name={name}"]
    # Of real images alone: DreamBooth's usual mix has two kinds in every batch of a process.
    flags = ["--run", run, "--data.batch_size", 4 // (nodes * tasks), "--data.mix", "RealOnly"]
    return slurm.sbatch(*layout, "slurm/fit.sbatch", f"configs/{model}.yaml", *flags), slurm.project / run


@pytest.fixture(scope="module")
def jobs(slurm):
    """A training of both models in every layout, all queued at once."""
    return {(model, layout): fit(slurm, model, *layout) for model in ("baseline", "dreambooth") for layout in LAYOUTS}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", ["baseline", "dreambooth"])
def test_every_layout_trains(slurm, jobs, model, layout):
    job, run = jobs[model, layout]
    assert slurm.wait(job) == {"COMPLETED"}, slurm.log(job)
    nodes, tasks = layout
    log = (slurm.project / f"slurm-{model} {nodes}x{tasks}-{job}.out").read_text()
    assert (run / "finished").read_text().startswith("4 steps"), log
    assert log.count("finished: ") == 1
    assert len(list(run.glob("events.*"))) == 1
    trainer = yaml.safe_load((run / "fit.yaml").read_text())["trainer"]
    assert (trainer["num_nodes"], int(trainer["devices"])) == layout
    seen = re.findall(r"rank (\d) of (\d) on (\w+): GPUs (\S+), from step 0", log)
    assert {(int(rank), int(ranks)) for rank, ranks, *_ in seen} == {(r, nodes * tasks) for r in range(nodes * tasks)}
    assert len({node for *_, node, _ in seen}) == nodes
    # Every task sees all the GPUs of its node that the job asked for, and Lightning takes the one of its local rank.
    assert all(len(gpus.split(",")) == tasks for *_, gpus in seen)


def test_the_classifier_is_the_same_in_every_layout(slurm, jobs):
    weights = []
    for layout in LAYOUTS:
        job, run = jobs["baseline", layout]
        slurm.wait(job)
        weights.append(torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
    for other in weights[1:]:
        assert all(torch.allclose(value, other[name], atol=TOLERANCE) for name, value in weights[0].items())


def test_a_job_that_is_given_no_environment_trains(slurm):
    job = slurm.sbatch("--export=NONE", "slurm/fit.sbatch", "configs/baseline.yaml", "--run", "runs/bare")
    assert slurm.wait(job) == {"COMPLETED"}, slurm.log(job)
    assert (slurm.project / "runs/bare/finished").read_text().startswith("4 steps")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nodes=2", "--ntasks=3", "--ntasks-per-node=2"], "3 tasks on 2 nodes"),
        (["--nodes=1", "--ntasks=1", "--ntasks-per-node=2"], "1 tasks on 1 nodes with --ntasks-per-node=2"),
        (["--gpus-per-node=2"], "2 GPUs but 1 tasks a node"),
        (["--job-name=bash"], "give the job another --job-name"),
        (["--chdir=elsewhere"], "no virtual environment .venv in "),
        (["--chdir=sets"], "slurm/common.sh: No such file"),
    ],
)
def test_what_cannot_work_is_refused_before_training(slurm, options, said):
    (slurm.project / "elsewhere").mkdir(exist_ok=True)
    (slurm.project / "elsewhere/slurm").unlink(missing_ok=True)
    (slurm.project / "elsewhere/slurm").symlink_to(slurm.project / "slurm")
    options = [option.replace("--chdir=", f"--chdir={slurm.project}/") for option in options]
    job = slurm.sbatch(*options, "slurm/fit.sbatch", "configs/baseline.yaml", "--run", "runs/refused")
    assert slurm.wait(job) == {"FAILED"}
    assert said in slurm.log(job)
    assert not list(slurm.project.rglob("refused"))

"""`study`: everything that a study file declares, from the images to the comparison."""

from pathlib import Path

from dermsynth.errors import InputError
from dermsynth.study import declaration, local
from dermsynth.study.checks import check, checks_of, warnings
from dermsynth.study.lock import locked
from dermsynth.study.overview import Overview
from dermsynth.study.plan import plan
from dermsynth.study.queue import refuse_beside_jobs
from dermsynth.study.script import script
from dermsynth.study.slurm import SlurmRunner, check_slurm


def study(
    file: Path,
    out: Path | None = None,
    jobs: int = 1,
    dry_run: bool = False,
    slurm: bool = False,
    sbatch: list[str] | None = None,
) -> None:
    """Run a study from one file: prepare, train generators, generate, train and test the arms, compare.

    Each step is a command of its own, whose output goes to a log in OUT/logs. The same command resumes a study that
    was interrupted; a step is run again exactly when its settings or the content of its inputs changed, and what
    it had made is then moved to OUT/replaced. With --slurm the steps that follow on such a one are run again, too.

    Args:
        file: what the study declares; ready ones are in configs/studies/.
        out: folder for all that is made. Default: studies/ and the file's name.
        jobs: steps that may run side by side; where there are several GPUs each gets one to itself.
        dry_run: print every command, as a shell script that would do the same, and run nothing; downloads, adopted
            and external sets need not be there.
        slurm: submit the steps as Slurm jobs that wait for one another, by slurm/study.sbatch and slurm/tool.sbatch,
            and watch them; given again it shows how they do, or submits what is left.
        sbatch: options of every job, as --sbatch "[--partition=long]".
    """
    if jobs < 1:
        raise InputError(f"--jobs {jobs}: expected at least 1.")
    if sbatch and not slurm:
        raise InputError("--sbatch: options of Slurm jobs, which --slurm submits. Give both or none.")
    if slurm and not dry_run:
        check_slurm()
    declared = declaration.read(file)
    out = out or Path("studies") / file.stem
    if (missing := declared.missing()) and not dry_run:
        raise InputError(missing[0])
    steps = plan(declared, out)
    for step in steps:
        check(step, file)
    untold = warnings(declared, steps)
    if dry_run:
        print(script(file, steps, [*missing, *untold]), end="")
        return
    with locked(out):
        overview = Overview(steps, jobs)
        for warning in untold:
            overview.say(f"warning: {warning}")
        overview.say(f"{file}: {len(steps)} steps, made in {out}")
        if slurm:
            SlurmRunner(steps, out, sbatch or (), overview).run()
        else:
            refuse_beside_jobs(out)
            gpus = local.visible_gpus() if jobs > 1 else ()
            local.Runner(steps, out, jobs, gpus, overview, checks=checks_of(declared, steps)).run()
        overview.say(f"all {len(steps)} steps are done; {overview.time()}\n")
    for step in steps:
        if step.command == "compare":
            print(f"{step.makes}\n\n{step.makes.read_text(encoding='utf-8')}")

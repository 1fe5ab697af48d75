"""Bad inputs, replayed over all commands and keys.

    python -m tests.robustness [--only PATTERN] [--list]

Each runs in a process forked from this one, which has imported everything, in a copy of small good inputs. It fails if
it ends in a traceback, hangs, takes nonsense for sense (exit status 0), or says more than three lines.
"""

import argparse
import gc
import importlib
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from fnmatch import fnmatchcase
from pathlib import Path

# Before torch is imported, whose threads do not survive a fork.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg"}

WORKERS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; 0 if none failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cases whose name matches, as '*--data.size=*'")
    parser.add_argument("--list", action="store_true", help="name the cases and run none")
    options = parser.parse_args(arguments)
    from tests.robustness import generated, written_models, written_sets

    every = [*generated.cases(), *written_sets.cases(), *written_models.cases()]
    chosen = [case for case in every if fnmatchcase(case.name, options.only)]
    if options.list:
        print("\n".join(f"{case.expected:9} {case.name}" for case in chosen))
        return 0
    if not chosen:
        parser.error(f"no case matches {options.only}")
    root = Path(tempfile.mkdtemp(prefix="robustness-"))
    try:
        failures = _replay(chosen, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    for kind, count in Counter(failure.partition(":")[0] for failure in failures).most_common():
        print(f"{count:5} {kind}")
    print(f"{len(chosen)} tried, {len(failures)} failed")
    return int(bool(failures))


def _replay(cases, root):
    from tests.robustness import child, world

    began = time.monotonic()
    _forked(world.build, root / "world")
    _warm(root)
    running, failures = {}, []
    for number, case in enumerate([*cases, *[None] * WORKERS]):
        if case is None or len(running) == WORKERS:
            if not running:
                break
            pid, status = os.wait()
            done, folder = running.pop(pid)
            child.end(pid)
            if failure := child.verdict(done, folder, status):
                failures.append(failure)
                print(f"FAILED {done.name}: {failure}", flush=True)
        if case is not None:
            folder = root / f"{number:04}"
            folder.mkdir()
            running[child.start(case, root / "world", folder)] = case, folder
    print(f"{time.monotonic() - began:.0f} seconds")
    return failures


def _warm(root):
    """Import what the commands need and have the parsers read each recipe, so that no child does what all would do."""
    from dermsynth.cli import main as command
    from dermsynth.run.quiet import quieten

    quieten()
    for name in (root / "world.modules").read_text(encoding="utf-8").split():
        with suppress(ImportError):  # such as what C makes within a module
            importlib.import_module(name)
    os.chdir(root / "world")
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        for name in ("vit", "dreambooth", "autoencoder"):
            command(["fit", "--config", f"{name}.yaml", "--run", "run", "--data.size=x"])
        command(["predict", "--config", "generate.yaml", "--run", "run", "--data.count=x"])
    gc.collect()
    gc.freeze()  # else each child's collections would copy all that it shares with this process


def _forked(work, folder):
    """Call in a process of its own, as what trains can have no children afterwards."""
    folder.mkdir()
    sys.stdout.flush()
    if not (pid := os.fork()):
        status = 1
        try:
            with Path(f"{folder}.log").open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                work(folder)
                status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit(f"the good inputs could not be made:\n{Path(f'{folder}.log').read_text()}")


if __name__ == "__main__":
    sys.exit(main())

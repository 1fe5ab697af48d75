"""A case in a process of its own, forked from one that has imported everything, and the verdict on what it did."""

import os
import re
import resource
import shutil
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from tests.robustness.case import Case

#: Seconds of the child's own processor time: a busy machine takes none of it away.
PROCESSOR = 25
#: Seconds by the clock, for a child that waits and takes no processor time.
CLOCK = 100
#: What a child may ask for beside what this process has mapped already.
MEMORY = 4 << 30
LINES = 3


def start(case: Case, world: Path, folder: Path) -> int:
    """Fork a child that runs the case in a copy of the world.

    Returns:
        Its process id.
    """
    shutil.copytree(world, folder / "work")
    os.mkfifo(folder / "work/fifo")  # which copytree refuses to copy
    sys.stdout.flush()
    sys.stderr.flush()
    if child := os.fork():
        return child
    status = 1
    try:
        _confine(folder)
        status = _run(case)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def end(child: int) -> None:
    """End what a child that has ended left behind, such as loader processes."""
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def verdict(case: Case, folder: Path, status: int) -> str | None:
    """What is wrong with how the child ended, in one line; None if nothing is.

    Args:
        case: that it ran.
        folder: in which it was started; deleted.
        status: as `os.wait` gives it.
    """
    output = (folder / "output").read_text(encoding="utf-8", errors="replace")
    ran = (folder / "work/RAN").exists()
    shutil.rmtree(folder, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    lines = [line for line in output.replace("\r", "\n").splitlines() if line.strip()]
    last = lines[-1][:150] if lines else "nothing"
    if ran:
        return "code ran that is data"
    if code in (-signal.SIGXCPU, -signal.SIGALRM, -signal.SIGKILL):
        return f"hang: {'processor' if code == -signal.SIGXCPU else 'clock'} limit; said last: {last}"
    if "Traceback (most recent call last)" in output:
        return f"traceback: {last}"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}: {last}"
    if code == 0:
        return "exit 0 for nonsense" if case.expected == "refused" else None
    begin = next((n for n, line in enumerate(lines) if re.match(r"dermsynth: error: ", line)), None)
    if begin is None:
        return f"no message (exit {code}): {last}"
    if case.expected == "accepted":
        return f"refused: {lines[begin][:150]}"
    if (length := len(lines) - begin) > LINES:
        return f"message of {length} lines: {lines[begin][:150]}"
    return None


def _confine(folder: Path) -> None:
    """Limits, a group of its own, output to a file, no network."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(CLOCK)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR, PROCESSOR + 5))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    mapped = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    log = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((0, nothing), (1, log), (2, log)):
        os.dup2(target, number)
    os.environ["HOME"] = str(folder)
    sys.addaudithook(_no_network)
    os.chdir(folder / "work")


def _no_network(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo" or (
        event == "socket.connect" and getattr(arguments[0], "family", None) != socket.AF_UNIX
    ):
        raise AssertionError(f"the network was asked for: {arguments[1:]}")


def _run(case: Case) -> int:
    from dermsynth.cli import main

    if case.spoil is not None:
        case.spoil(Path())
    sys.argv = ["dermsynth", *case.argv]
    try:
        return main(list(case.argv))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)

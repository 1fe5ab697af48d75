"""The command line: one table of commands, each imported only when it is called.

Only the standard library is imported here, so that `--help` and a mistyped command answer at once.
"""

import difflib
import errno
import functools
import importlib
import inspect
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dermsynth import __version__
from dermsynth.errors import InputError

PROGRAM = "python -m dermsynth"

#: Name: (module:function, what it does), in the order in which they are usually called.
COMMANDS: dict[str, tuple[str, str]] = {
    "phantoms": (
        "dermsynth.tools.phantoms:phantoms",
        "draw lesions in the ISIC 2020 layout, to try things out",
    ),
    "prepare": (
        "dermsynth.tools.prepare:prepare",
        "ISIC downloads, class folders, CSVs to an image set, split by patient",
    ),
    "adopt": ("dermsynth.tools.adopt:adopt", "synthetic images made elsewhere to an image set"),
    "reconstruct": (
        "dermsynth.tools.reconstruct:reconstruct",
        "real train images through a generator's autoencoder, as an image set",
    ),
    "init": ("dermsynth.tools.init:init", "an untrained Stable Diffusion pipeline of any size"),
    "fit": ("dermsynth.run.training_cli:run", "train what a configuration describes, or resume it"),
    "validate": ("dermsynth.run.training_cli:run", "measure a model on the validation split"),
    "test": ("dermsynth.run.training_cli:run", "measure a checkpoint on the test split; writes predictions.csv"),
    "predict": ("dermsynth.run.training_cli:run", "generate images"),
    "export": ("dermsynth.tools.export:export", "a checkpoint to a format that other programs read"),
    "audit": ("dermsynth.tools.audit:audit", "do generated images look real, and is one somebody's photograph?"),
    "compare": (
        "dermsynth.tools.compare:compare",
        "runs of two or more arms to a table with intervals and tests",
    ),
    "study": ("dermsynth.tools.study:study", "all of it from one file: prepare, generate, train the arms, compare"),
}

# What LightningCLI reads by itself.
_STAGES = ("fit", "validate", "test", "predict")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the command and its arguments; None takes them from `sys.argv`.

    Returns:
        The exit status: 0, 2 for a mistake in the input or a full disk, 130 after Ctrl-C, 141 where nobody reads what
        is printed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _repair_streams()
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_help(), file=sys.stdout if arguments else sys.stderr)
            return 0 if arguments else 2
        if arguments[0] == "--version":
            print(f"dermsynth {__version__}")
            return 0
        command = _load(arguments[0])
        command(arguments)
        sys.stdout.flush()
    except InputError as error:
        return _fail(str(error))
    except BrokenPipeError:  # whoever read our output has ended, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MemoryError as error:
        return _fail(f"out of memory ({error or 'nothing was left'}). Give smaller batches, or free some memory.")
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "the output"
        return _fail(f"{name}: {error.strerror}. Make room or correct its permissions, and try again.")
    except KeyboardInterrupt:
        return 130
    return 0


# What a disk or its rights can be blamed for; anything else is a fault of ours, whose traceback is wanted.
_OF_THE_DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
)


def _fail(message: str) -> int:
    print(f"dermsynth: error: {message}", file=sys.stderr)
    return 2


def _repair_streams() -> None:
    """Let nothing that is printed end a command: neither a closed output nor one that knows no `±`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # and the next file that is opened would take its place
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  (for as long as the process lives)
        elif isinstance(getattr(sys, name), io.TextIOWrapper):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _load(name: str) -> Callable[[list[str]], None]:
    """The command as a function of the whole argument list."""
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"Did you mean {near[0]}?" if near else f"See {PROGRAM} --help."
        raise InputError(f"no command {name!r}. {hint}")
    command = tool(name)
    return command if name in _STAGES else functools.partial(_run_tool, command)


def _run_tool(function: Callable[..., None], arguments: list[str]) -> None:
    """Call a tool with what its signature and docstring make of the arguments."""
    function(**tool_arguments(function, arguments))


def tool_arguments(function: Callable[..., None], arguments: Sequence[str]) -> dict[str, Any]:
    """What a tool is called with.

    The first parameter, the tool's input, is positional unless it is `out` or has a default.

    Args:
        function: the tool.
        arguments: the command and its arguments.

    Raises:
        InputError: a mistake in them.
    """
    import docstring_parser
    from jsonargparse import ArgumentError, ArgumentParser

    from dermsynth.run.config_checks import check_arguments, check_values, take_paths
    from dermsynth.run.config_errors import explain

    take_paths()
    documented = docstring_parser.parse(function.__doc__ or "")
    name, *rest = arguments
    parser = ArgumentParser(
        prog=f"{PROGRAM} {name}",
        description=documented.description,
        # argparse completes abbreviations: a flag added later would then change what a script means.
        allow_abbrev=False,
        exit_on_error=False,
    )
    parameters = inspect.signature(function, eval_str=True).parameters
    first, parameter = next(iter(parameters.items()))
    positional = first != "out" and parameter.default is parameter.empty
    if positional:
        several = parameter.annotation == list[Path]
        about = next((p.description for p in documented.params if p.arg_name == first), None)
        metavar = (first.removesuffix("s") if several else first).upper()
        parser.add_argument(first, type=Path, nargs="+" if several else None, metavar=metavar, help=about)
    parser.add_function_arguments(function, skip={first} if positional else None)
    flags = [key for key, _ in parser.get_defaults().items() if key != first or not positional]
    rest = _as_known(rest, flags, [name for name, of in parameters.items() if of.annotation is bool])
    rest = _with_lists(rest, [name for name, of in parameters.items() if of.annotation in _LISTS and name in flags])
    check_arguments(rest, [])
    try:
        values = parser.parse_args(rest)
    except ArgumentError as error:
        raise InputError(explain(str(error), flags, arguments)) from error
    check_values(values, flags)
    return dict(vars(parser.instantiate(values)))


_YES_OR_NO = ("true", "false", "yes", "no", "1", "0")


def _as_known(words: Sequence[str], flags: Sequence[str], switches: Sequence[str]) -> list[str]:
    """Words in which a flag has the name that it has here, and a switch a value: `--dry-run` is `--dry_run true`."""
    known = []
    for word, following in itertools.zip_longest(words, words[1:]):
        name, equals, value = word.removeprefix("--").partition("=")
        own = name if name in flags else name.replace("-", "_")
        is_flag = word.startswith("--") and own in flags
        known.append(f"--{own}{equals}{value}" if is_flag else word)
        if is_flag and own in switches and not equals and str(following).lower() not in _YES_OR_NO:
            known.append("true")
    return known


_LISTS = (list[Path], list[Path] | None)


def _with_lists(words: Sequence[str], lists: Sequence[str]) -> list[str]:
    """Words in which all that follow a flag for several paths, up to the next flag, are one list: `--synthetic A B`."""
    known, left = list[str](), list(words)
    while left:
        known.append(left.pop(0))
        if known[-1].removeprefix("--") in lists and known[-1].startswith("--"):
            paths = list(itertools.takewhile(lambda word: not word.startswith("--"), left))
            if paths and not paths[0].startswith("["):
                known.append(json.dumps(paths))
                left = left[len(paths) :]
    return known


def tool(name: str) -> Callable[..., None]:
    """The function of a command that is none of LightningCLI's."""
    module, function = COMMANDS[name][0].split(":")
    found: Callable[..., None] = getattr(importlib.import_module(module), function)
    return found


def _help() -> str:
    lines = "\n".join(f"  {name:<13}{text}" for name, (_, text) in COMMANDS.items())
    return (
        f"usage: {PROGRAM} COMMAND ...\n\n"
        "Train a generator on some patients' dermoscopy images, make synthetic ones, and find out whether a\n"
        "classifier that sees them does better on other patients' real images.\n\n"
        f"commands:\n{lines}\n\n"
        f"{PROGRAM} COMMAND --help explains a command; LightningCLI.md teaches them."
    )

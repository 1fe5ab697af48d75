"""What Lightning, jsonargparse and torch raise for a user's mistake, as an InputError of one message."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.trainer.connectors import checkpoint_connector

from dermsynth.errors import InputError
from dermsynth.hub import first_line

_NO_GPU = (
    "trainer.accelerator: gpu, but torch sees no GPU here. Run it where there is one, with a torch built for it, or "
    "add --trainer.accelerator cpu."
)


@contextmanager
def explained(trainer: Trainer, run: Path) -> Iterator[None]:
    """Translate what a stage raises; name the file where a checkpoint does not fit the model.

    Args:
        trainer: of the stage.
        run: its folder.

    Raises:
        InputError: for what is a mistake of the user's; all else is raised as it is.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if trainer.ckpt_path is None or not _is_of_restoring(error):
            raise
        raise InputError(
            f"{trainer.ckpt_path}: it cannot be restored ({type(error).__name__}: {first_line(error)}) It is "
            "damaged, or of another version of Lightning. Take another checkpoint of the run."
        ) from error
    except OSError as error:
        # Of an event file, the system does not say which file it is.
        error.filename = error.filename or str(run)
        raise
    except (InputError, RuntimeError) as error:
        # Modules see a checkpoint's content and not its file; `load_state_dict` lists every weight.
        text = str(error)
        if text.startswith("Early stopping conditioned on metric"):
            raise InputError(f"trainer.callbacks: {' '.join(text.split())}") from error
        if "cannot be converted to type" in text and "without overflow" in text:
            raise InputError(
                f"model.optimizer: a step is beyond the largest number of its type ({first_line(error)}). Give a "
                "smaller lr."
            ) from error
        if isinstance(error, InputError) and "Original Traceback" in text:
            # From a loader process: torch puts the traceback before the message.
            raise InputError(re.split(r"(?:InputError|BrokenImageError): ", text)[-1].strip()) from error
        lines = text.splitlines()
        if not lines or not lines[0].startswith(("the checkpoint", "Error(s) in loading state_dict")):
            raise
        more = [f"\t… and {len(lines) - 5} more"] if len(lines) > 5 else []
        raise InputError("\n".join([f"{trainer.ckpt_path}: {lines[0]}", *lines[1:5], *more])) from error


@contextmanager
def instantiating() -> Iterator[None]:
    """Let a class's own message through: jsonargparse tries each type that a parameter may have and reports all."""
    try:
        yield
    except ValueError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__ or cause.__context__
        # Such as a logger's own package, of which Lightning says which it is and how to get it.
        missing = re.search(r"^.*(Requirement '|No module named).*$", str(error), re.MULTILINE)
        if cause is None and missing:
            raise InputError(f"a package is missing: {missing[0].strip()}") from error
        raise (cause or error) from None


def misconfigured(error: MisconfigurationException) -> InputError:
    """What Lightning says of a Trainer that cannot be had here."""
    return InputError(_NO_GPU if "No supported gpu backend" in str(error) else str(error))


def _is_of_restoring(error: BaseException) -> bool:
    """Whether Lightning raised it while it took a checkpoint apart."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == checkpoint_connector.__name__ for frame, _ in frames)

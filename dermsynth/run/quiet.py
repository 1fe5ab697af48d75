"""Silence what libraries say in every run and a user can do nothing about; each line says why."""

import logging
import os
import threading
import warnings

_hook_before = threading.excepthook

# Beginnings of warnings, as patterns.
WARNINGS = (
    # Checkpoint callbacks belong to `fit`; other stages need none.
    r"Be aware that when using .ckpt_path.",
    # Short epochs are no mistake: steps are counted through all of them.
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    # A change in torch that Lightning has yet to follow.
    r".*treespec, LeafSpec",
    # True of every run that is resumed, whose checkpoints have been found to be its own.
    r"Checkpoint directory .* exists and is not empty",
    # Frozen parts are in evaluation mode on purpose.
    r"Found .* module\(s\) in eval mode",
    # On a machine of a cluster, of every command that is not a job.
    r"The `srun` command is available on your system but is not used",
    # DreamBooth has the hook that this is about, but uses it under FSDP alone, where averaging is refused.
    r"You're using the WeightAveraging callback with a model that overrides the configure_model",
    # The summary's megabytes are those of 32-bit weights, which mixed precision keeps.
    r"Precision bf16-mixed is not supported by the model summary",
)
# Beginnings of lines that Lightning logs: devices that nobody asked for, a callback of ours, a number of the
# configuration.
UNASKED = ("TPU available: False", "GPU available: False", "Trainer already configured with model summary", "Seed set")
ADVERTISEMENT = "Tip:"  # anywhere in such a line
WRITER = "_AsyncWriterThread"  # TensorBoard's


def quieten() -> None:
    """Call before diffusers or transformers is imported."""
    # That there is no torchvision: nothing here uses what it would be for.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.seed"):
        logging.getLogger(f"lightning.{name}").addFilter(_is_worth_saying)
    # Where bitsandbytes is installed, that a kernel for 4-bit products is not: nothing here has any.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    threading.excepthook = _not_of_tensorboard
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)


def quieten_transformers() -> None:
    """Call before a model is loaded, and only where one is: the import takes a second."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    # Bars for files that are read in a blink; downloads keep theirs.
    transformers_logging.disable_progress_bar()


def _not_of_tensorboard(failed: threading.ExceptHookArgs) -> None:
    """Leave out a full disk that its thread meets: it is raised again where the training logs, and said there."""
    if not (type(failed.thread).__name__ == WRITER and isinstance(failed.exc_value, OSError)):
        _hook_before(failed)


def _is_worth_saying(line: logging.LogRecord) -> bool:
    text = line.getMessage()
    return ADVERTISEMENT not in text and not text.startswith(UNASKED)

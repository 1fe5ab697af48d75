"""What a run needs of the processes and the job that it is started in; what would hang or be lost without."""

import os
import signal
from collections.abc import Sequence

from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import TorchElasticEnvironment

from dermsynth.contracts import HeedsSignals
from dermsynth.errors import InputError

# By the beginnings of their names: what says in the environment where a run's other nodes are.
_OF_NODES = (
    "SLURM_",
    "TORCHELASTIC_",
    "MASTER_ADDR",
    "NODE_RANK",
    "GROUP_RANK",
    "LSB_",
    "OMPI_",
    "PMI_",
    "KUBERNETES_",
)


def check_nodes(trainer: Namespace) -> None:
    """Refuse several nodes where nothing says that there are others: this one would wait for them forever."""
    if trainer.num_nodes > 1 and not trainer.plugins and not any(name.startswith(_OF_NODES) for name in os.environ):
        raise InputError(
            f"trainer.num_nodes: {trainer.num_nodes}, but nothing here says where the others are. Start it on each by "
            "srun or torchrun, or set MASTER_ADDR and NODE_RANK."
        )


def check_torchrun(trainer: Trainer) -> None:
    """Refuse one device for several processes: each would train by itself, and all write into one folder."""
    started, used = int(os.environ.get("WORLD_SIZE", 1)), trainer.num_devices * trainer.num_nodes
    if TorchElasticEnvironment.detect() and started != used:
        raise InputError(
            f"torchrun started {started} processes, but trainer.devices × trainer.num_nodes is {used}. Give as many."
        )


def unheeded_signals(callbacks: Sequence[Callback]) -> str:
    """What to say in a Slurm job to whose signals nothing listens; blank if there is nothing to say."""
    heeded = any(isinstance(callback, HeedsSignals) and signal.SIGTERM in callback.signals for callback in callbacks)
    if heeded or "SLURM_JOB_ID" not in os.environ:
        return ""
    return (
        "warning: trainer.callbacks has no Preemption: when the job's time is up, or it is "
        "preempted, the steps since the last checkpoint are lost."
    )

"""fit, validate, test and predict: LightningCLI with the few decisions of this project.

A run is a folder, `--run FOLDER`. It holds the resolved configuration of each stage (`fit.yaml` …), the checkpoints, the
TensorBoard events and whatever callbacks write. `fit` on a folder that exists goes on with it or refuses, so that no run
is overwritten.
"""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from dermsynth.config_errors import explain
from dermsynth.data.manifest import write_atomically
from dermsynth.errors import InputError

FINISHED = "finished"
# Keys of fit.yaml that say where and from what a run goes on, not what it is.
NOT_IDENTITY = ("run", "ckpt_path")

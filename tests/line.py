"""Training by `line.yaml`, in the folder of the fixture `here`."""

import torch

from dermsynth.cli import main


def fit(*more, run="r"):
    return main(["fit", "--config", "line.yaml", "--run", run, *more])


def checkpoint(path):
    return torch.load(path, weights_only=True)

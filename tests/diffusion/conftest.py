import pytest

from dermsynth.data.sets import manifest
from tests.builders import CLASSES, make_set


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """A real set and one of class images, of the same train split; read only."""
    root = tmp_path_factory.mktemp("sets")
    real = make_set(root / "real")
    split = manifest.train_split_sha256(manifest.read(real).records)
    return real, make_set(root / "prior", dict.fromkeys(CLASSES, 4), "train", "synthetic", train_split_sha256=split)

import pytest

from tests.builders import make_pipeline


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A tiny pipeline with random weights; read only."""
    return str(make_pipeline(tmp_path_factory.mktemp("models") / "base"))

import pytest

from tests.evaluation.made_comparison import make


@pytest.fixture
def comparison():
    """Makes a comparison of two arms."""
    return make

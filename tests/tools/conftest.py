import pytest

from tests.tools.drawn import download


@pytest.fixture
def source(tmp_path):
    return download(tmp_path / "isic2020")

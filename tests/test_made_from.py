"""What a product was made from, by content."""

import pytest

from dermsynth import made_from


@pytest.mark.parametrize("name", ["table.csv", "table.TSV", "table.tab", "table.txt", "HAM10000_metadata"])
def test_a_table_of_a_source_is_known_by_its_content(tmp_path, name):
    table = tmp_path / name
    table.write_text("image\tdx\na\tNV\n")
    before = made_from.source(tmp_path)
    table.write_text("image\tdx\na\tBC\n")
    assert made_from.source(tmp_path) != before


def test_an_image_of_a_source_is_known_by_its_size(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"123")
    before = made_from.source(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"124")
    assert made_from.source(tmp_path) == before
    (tmp_path / "a.jpg").write_bytes(b"1234")
    assert made_from.source(tmp_path) != before

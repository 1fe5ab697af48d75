import pytest

from dermsynth.hub import is_folder_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("google/vit-base-patch16-224-in21k", False),
        ("gpt2", False),
        ("runs", True),
        ("runs/bsae", True),
        ("runs/base", True),
        ("a/b/c", True),
        ("./x", True),
        ("../x", True),
        ("~/x", True),
        ("/x", True),
    ],
)
def test_folders_are_told_from_hub_ids(tmp_path, monkeypatch, name, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/base").mkdir(parents=True)
    assert is_folder_name(name) == expected


def test_a_hub_id_becomes_a_folder_name_beside_such_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_folder_name("google/vit")
    (tmp_path / "google").mkdir()
    assert is_folder_name("google/vit")

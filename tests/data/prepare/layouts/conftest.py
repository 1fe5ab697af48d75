"""Small downloads under the official names. Readers read no pixels, so the images are empty files."""

import pytest

from tests.data.prepare.layouts.helpers import COLUMNS_2020, touch


@pytest.fixture
def isic2017(tmp_path):
    """Two images a part: a melanoma and a keratosis in training, a nevus and a melanoma elsewhere."""
    folder = tmp_path / "isic2017"
    flags = {
        "Training": ("1.0,0.0", "0.0,1.0"),
        "Validation": ("0.0,0.0", "1.0,0.0"),
        "Test_v2": ("0,0", "1,0"),
    }
    for number, (part, rows) in enumerate(flags.items()):
        names = [f"ISIC_000000{2 * number + i}" for i in range(2)]
        data = folder / f"ISIC-2017_{part}_Data"
        for name in names:
            touch(data / f"{name}.jpg")
            touch(data / f"{name}_superpixels.png")
        truth = "".join(f"{name},{row}\r\n" for name, row in zip(names, rows, strict=True))
        table = folder / f"ISIC-2017_{part}_Part3_GroundTruth.csv"
        table.write_text("image_id,melanoma,seborrheic_keratosis\r\n" + truth)
        people = f"{names[0]},55,female\n{names[1]},unknown,unknown\n"
        (data / f"{data.name}_metadata.csv").write_text("image_id,age_approximate,sex\n" + people)
    return folder


@pytest.fixture
def isic2020(tmp_path):
    folder = tmp_path / "isic2020"
    rows = [
        "ISIC_0000001,IP_1,female,45.0,torso,unknown,benign,0",
        "ISIC_0000002,IP_1,,,,nevus,benign,0",
        "ISIC_0000003,IP_2,male,50,head/neck,melanoma,malignant,1",
        "ISIC_0000004,IP_2,male,50,head/neck,lentigo NOS,benign,0",
    ]
    for row in rows:
        touch(folder / "train" / f"{row[:12]}.jpg")
    (folder / "train.csv").write_text("\n".join([COLUMNS_2020, *rows]) + "\n")
    return folder

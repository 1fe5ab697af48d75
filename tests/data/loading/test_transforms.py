import cv2
import numpy as np
import pytest
import torch

from dermsynth.data.loading.transforms import Transform


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)


def test_without_augmentation_it_is_the_scaled_centre(image):
    expected = torch.from_numpy(image[4:20]).permute(2, 0, 1) / 127.5 - 1
    for seed in (0, 1):
        torch.testing.assert_close(Transform(16, "none")(image, seed), expected)


@pytest.mark.parametrize(("size", "how"), [(8, cv2.INTER_AREA), (32, cv2.INTER_CUBIC)])
def test_it_shrinks_by_area_and_enlarges_by_cubics(image, size, how):
    margin = size // 4
    centre = cv2.resize(image, (size, size + 2 * margin), interpolation=how)[margin : margin + size]
    expected = torch.from_numpy(centre).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(Transform(size, "none")(image, 0), expected)


def test_dihedral_gives_the_eight_views_of_a_square(image):
    square = image[4:20]
    turned = [np.rot90(side, k) for side in (square, square[:, ::-1]) for k in range(4)]
    views = {(t.astype(np.float32) / 127.5 - 1).tobytes() for t in turned}
    transform = Transform(16, "dihedral")
    seen = {transform(square, seed).permute(1, 2, 0).contiguous().numpy().tobytes() for seed in range(100)}
    assert {np.frombuffer(v, np.float32).round(4).tobytes() for v in seen} == {
        np.frombuffer(v, np.float32).round(4).tobytes() for v in views
    }


@pytest.mark.parametrize("augmentation", ["none", "dihedral", "standard"])
def test_the_seed_decides_the_result_and_its_range(image, augmentation):
    transform = Transform(12, augmentation)
    one = transform(image, 5)
    assert one.shape == (3, 12, 12)
    assert one.dtype == torch.float32
    assert one.min() >= -1
    assert one.max() <= 1
    transform(image, 6)
    assert torch.equal(transform(image, 5), one)
    assert torch.equal(Transform(12, augmentation)(image, 5), one)
    if augmentation != "none":
        assert not torch.equal(transform(image, 6), one)


def test_augmentation_asks_no_network():
    import subprocess
    import sys

    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse; socket.create_connection = refuse; socket.getaddrinfo = refuse\n"
        "from dermsynth.data.loading.transforms import Transform\n"
        "Transform(8, 'standard')\n"
    )
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0

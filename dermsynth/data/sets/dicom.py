"""The pixels of a DICOM photograph (`.dcm`), as a viewer would show them.

What is done, in the order of the standard's image pipeline (PS3.4, N.2): modality LUT or rescale, then the window or
VOI LUT of the file, then the photometric interpretation. Without a window the whole range of the stored bits is shown,
and never the range of one image's values: that would change the contrast from image to image.
"""

import io
from types import ModuleType
from typing import Any

import numpy as np

from dermsynth.data.sets import decoding
from dermsynth.data.sets.decoding import RGB
from dermsynth.errors import BrokenImageError, InputError

_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


def is_dicom(data: bytes) -> bool:
    """Whether these bytes begin a DICOM file."""
    return data[128:132] == b"DICM"


def decode(data: bytes, where: object, cover: int | None = None) -> RGB:
    """The one picture of a DICOM file.

    Args:
        data: the file's bytes.
        where: the file, for messages.
        cover: as in `decoding.decode`, for files that hold a JPEG.

    Returns:
        uint8 `[H, W, 3]`, RGB.

    Raises:
        BrokenImageError: damaged, of several frames, or of a kind that is no photograph.
        InputError: pydicom is not installed.
    """
    pydicom = _pydicom()
    try:
        data_set = pydicom.dcmread(io.BytesIO(data))
        _refuse(data_set, len(data), where)
        syntax = data_set.file_meta.TransferSyntaxUID
        if syntax == _JPEG_BASELINE and data_set.PhotometricInterpretation.startswith("YBR_FULL"):
            # The usual case, and a JPEG like any other: decoded as small as the target allows.
            frame = pydicom.encaps.get_frame(data_set.PixelData, 0, number_of_frames=1)
            return decoding.decode(frame, where, cover)
        return _show(pydicom, data_set, where)
    except BrokenImageError:
        raise
    except Exception as error:  # pydicom raises a dozen kinds, by what is missing or wrong
        raise BrokenImageError(where, f"a damaged DICOM file ({error}). Download it again.") from error


def _pydicom() -> ModuleType:
    try:
        import pydicom
        import pydicom.encaps
        import pydicom.pixels
    except ImportError as error:
        raise InputError("DICOM files need pydicom: pip install 'pydicom>=3'.") from error
    return pydicom


def _refuse(data_set: Any, size: int, where: object) -> None:
    frames = int(data_set.get("NumberOfFrames") or 1)
    if frames != 1:
        raise BrokenImageError(where, f"holds {frames} frames; one photograph a file is expected.")
    decoding.refuse_size(int(data_set.Columns), int(data_set.Rows), size, where)


def _show(pydicom: ModuleType, data_set: Any, where: object) -> RGB:
    kind = data_set.PhotometricInterpretation
    stored = pydicom.pixels.pixel_array(data_set, raw=False)  # not raw: YBR becomes RGB
    if kind == "PALETTE COLOR":
        return _to_eight_bits(pydicom.pixels.apply_color_lut(stored, data_set), 16)
    if kind in ("MONOCHROME1", "MONOCHROME2"):
        grey = _window(pydicom, stored, data_set)
        if kind == "MONOCHROME1":
            grey = 255 - grey
        return np.repeat(grey[:, :, None], 3, axis=2)
    if kind == "RGB" or kind.startswith("YBR"):
        return _to_eight_bits(stored, int(data_set.BitsStored))
    raise BrokenImageError(where, f"photometric interpretation {kind}; expected a grey or colour photograph.")


def _window(pydicom: ModuleType, stored: np.ndarray, data_set: Any) -> np.ndarray:
    """Grey values as shown, uint8: through the window where there is one, else the whole range of the stored bits."""
    if data_set.get("WindowCenter") is None and "VOILUTSequence" not in data_set:
        lowest = -(1 << int(data_set.BitsStored) - 1) if data_set.PixelRepresentation else 0
        return _to_eight_bits(stored.astype(np.int64) - lowest, int(data_set.BitsStored))
    values = pydicom.pixels.apply_modality_lut(stored, data_set)
    low, high = _output_range(pydicom, values, data_set)
    shown = pydicom.pixels.apply_voi_lut(values, data_set).astype(np.float64)
    return np.clip((shown - low) / (high - low) * 255, 0, 255).round().astype(np.uint8)


def _output_range(pydicom: ModuleType, values: np.ndarray, data_set: Any) -> tuple[float, float]:
    """The darkest and brightest value that the window of a file can give (PS3.3, C.11.2.1.2)."""
    if "VOILUTSequence" in data_set:
        return 0, (1 << int(data_set.VOILUTSequence[0].LUTDescriptor[2])) - 1
    probe = np.array([[-1e9, 1e9]])
    low, high = pydicom.pixels.apply_voi_lut(probe, data_set).ravel()
    return float(low), float(high)


def _to_eight_bits(values: np.ndarray, bits: int) -> RGB:
    return np.round(values * (255 / ((1 << bits) - 1))).astype(np.uint8)

"""SBD's masks: MATLAB files with a structure GTcls, whose field Segmentation has a class's number a pixel."""

import io
import warnings

import numpy as np

from trunkline.ground.errors import DataError

from ...images.decode import MAX_PIXELS

_MOST = 256 << 10  # bytes: SBD's have a few thousand, and compressed data may grow a thousandfold


def read_mat(data: bytes) -> np.ndarray:
    """Read the class numbers, `(H, W)` int32. Raises DataError where the file is no mask of SBD or scipy is missing."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DataError("reading SBD's .mat files needs scipy: pip install 'trunkline[segmentation]'") from None
    if not data:
        raise DataError("the file is empty")
    if len(data) > _MOST:
        raise DataError(f"has {len(data):,} bytes; a mask of SBD has {_MOST:,} at most")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (structure,) = loadmat(io.BytesIO(data), variable_names=["GTcls"])["GTcls"].ravel()
            found = np.asarray(structure["Segmentation"])
    except Exception as error:  # scipy's readers raise a dozen kinds
        raise DataError(f"is no mask of SBD, or damaged ({type(error).__name__}: {str(error)[:120]})") from None
    if found.ndim != 2 or found.dtype.kind not in "uif" or not 0 < found.size <= MAX_PIXELS:
        raise DataError(f"GTcls.Segmentation is {found.dtype} of shape {found.shape}; expected a number a pixel")
    whole = found.astype(np.int32)
    if found.dtype.kind == "f" and (whole != found).any():
        raise DataError("GTcls.Segmentation has fractions; expected whole numbers")
    return whole

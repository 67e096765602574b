"""Peak signal-to-noise ratio of two images."""

import numpy as np


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """10 log10(255^2 / mean squared error), in dB; infinite for equal images.

    Shapes: equal, uint8.
    """
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))

"""`digits`: the 1,797 handwritten 8x8 digits that scikit-learn carries; needs no file and no network.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from whyprune.data.source import DataSource
from whyprune.data.splits import TensorSplit

TEST_IMAGES = 500
DARKEST = 16  # the data counts ink from 0 to 16


def load_digits_source(_argument: str = "", _image_size: int | None = None) -> DataSource:
    """1,297 training and 500 test images, uint8 (1, 8, 8); the split is stratified and always the same."""
    bunch = load_digits()
    train, test = train_test_split(
        np.arange(len(bunch.target)), test_size=TEST_IMAGES, stratify=bunch.target, random_state=0
    )
    pixels = np.round(bunch.images * (255 / DARKEST)).astype(np.uint8)
    images = torch.from_numpy(pixels).unsqueeze(1)
    return DataSource(
        "digits",
        TensorSplit("digits train", images[np.sort(train)], bunch.target[np.sort(train)]),
        TensorSplit("digits test", images[np.sort(test)], bunch.target[np.sort(test)]),
        tuple(str(name) for name in bunch.target_names),
    )

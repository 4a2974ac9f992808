"""A data set in the format of Fashion-MNIST, with random images."""

import gzip
import struct
from pathlib import Path

import numpy as np

COUNTS = dict(train=5, t10k=3)


def write_fashion_mnist(folder: Path, packed: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write the four files, and return the images and labels of 'train' and 't10k'."""
    random = np.random.default_rng(0)
    contents = {}
    for name, n in COUNTS.items():
        images = random.integers(256, size=(n, 28, 28), dtype=np.uint8)
        labels = random.integers(10, size=n, dtype=np.uint8)
        contents[name] = images, labels
        for kind, array, magic in (('images-idx3', images, 2051), ('labels-idx1', labels, 2049)):
            data = struct.pack(f'>{1 + array.ndim}i', magic, *array.shape) + array.tobytes()
            path = folder / f'{name}-{kind}-ubyte'
            if packed:
                path.with_name(f'{path.name}.gz').write_bytes(gzip.compress(data))
            else:
                path.write_bytes(data)
    return contents

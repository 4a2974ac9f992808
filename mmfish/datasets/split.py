"""Which images are for validation where a data set leaves that open."""

from hashlib import sha256
from pathlib import PurePosixPath


def is_validation(file_name: str, fraction: float) -> bool:
    """Whether an image is for validation: a function of its name alone, the same on every machine.

    Adding images to a data set or taking some out moves no other image from one part to the other.

    Args:
        file_name: of the image, with the folders that belong to it. The ending does not count.
        fraction: of all images that are for validation, about; from 0 (none) to 1 (all).

    Returns:
        True for validation, False for training.
    """
    name = PurePosixPath(file_name.replace('\\', '/')).with_suffix('')
    digest = sha256(name.as_posix().encode()).hexdigest()
    return int(digest, 16) / 16 ** len(digest) < fraction

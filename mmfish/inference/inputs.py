"""Which images and videos a user means, and how they are read."""

import glob
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from mmfish.errors import DataError

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif', '.ppm', '.pgm', '.jp2')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')

Decoder = Callable[[bytes], np.ndarray | None]


class File(NamedTuple):
    """An image or a video."""

    path: Path
    name: str  # the path from the lowest folder that holds all inputs, with '/'

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its name."""
        return self.path.suffix.lower() in VIDEOS


def find_files(
    inputs: str | os.PathLike | Iterable[str | os.PathLike],
) -> tuple[list[File], list[str], list[Path]]:
    """Find the images and videos that are meant.

    Args:
        inputs: one or several of images, videos, folders, and patterns such as ``'photos/*.jpg'``
            (``**`` stands for any number of folders). Folders are searched with all folders below
            them, also those that they link to, without hidden files.

    Returns:
        The files, each once, in the order of the inputs and sorted within a folder; the names of
        the other files in the folders; and the folders, with those that they link to.

    Raises:
        DataError: an input is not there, a pattern matches nothing, or there is no image.
    """
    inputs = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    found: dict[Path, None] = {}
    roots = []
    folders = []
    for given in inputs:
        for path in _matches(os.fspath(given)):
            path = Path(os.path.abspath(path))
            if path.is_dir():
                roots.append(path)
                below, links = _search(path)
                folders += [path, *links]
                found.update(dict.fromkeys(below))
            else:
                roots.append(path.parent)
                found[path] = None
    root = os.path.commonpath(roots) if roots else ''
    files = [File(path, path.relative_to(root).as_posix()) for path in found]
    # What was given by its name is taken for an image, whatever it is called.
    left_out = {
        file
        for file in files
        if file.path.suffix.lower() not in IMAGES + VIDEOS
        and any(folder in file.path.parents for folder in folders)
    }
    others = [file.name for file in files if file in left_out]
    files = [file for file in files if file not in left_out]
    if not files:
        raise DataError(
            f'there is no image in {", ".join(map(str, inputs)) or "an empty list of inputs"}: '
            f'expected files whose names end in {", ".join(IMAGES + VIDEOS)}'
        )
    return files, others, folders


def _matches(given: str) -> list[str]:
    path = os.path.expanduser(given)
    if os.path.exists(path):
        return [path]
    if glob.has_magic(path):
        found = sorted(glob.glob(path, recursive=True))
        if found:
            return found
        raise DataError(f'no file matches {given}: expected a pattern of images, e.g. photos/*.jpg')
    raise DataError(f'there is no {given}: expected an image, a video, a folder or a pattern')


def _search(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files in a folder and in all folders below it, and the links to folders, both sorted."""
    files, links = [], []
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place)
        if here.resolve() in seen:  # links may make a circle
            folders.clear()
            continue
        seen.add(here.resolve())
        if here != folder and here.is_symlink():
            links.append(here)
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        visible = (here / name for name in names if not name.startswith('.'))
        files += [file for file in visible if file.is_file()]
    return sorted(files), sorted(links)


def decode_image(data: bytes) -> np.ndarray | None:
    """Decode an image with OpenCV as MMCV does: 8 bits, three channels, turned as EXIF says.

    Args:
        data: content of the file, not empty.

    Returns:
        (H, W, 3), BGR, uint8; None if OpenCV cannot decode it.
    """
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def read_image(path: Path, decode: Decoder = decode_image) -> np.ndarray:
    """Read an image.

    Args:
        path: of the file.
        decode: the decoder. What it cannot decode, such as GIF with older versions of OpenCV,
            Pillow does (the first picture of several).

    Returns:
        What the decoder gives; from Pillow, (H, W, 3), BGR, uint8.

    Raises:
        DataError: the file cannot be read, or is damaged or no image; the message does not name
            it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f'it cannot be read ({error.strerror or error})') from error
    if not data:
        raise DataError('it is empty')
    try:
        image = decode(data)
    except Exception:  # of whichever decoder, for whatever is in the file
        image = None
    return _decode_with_pillow(data) if image is None else image


def _decode_with_pillow(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode in ('F', 'I', 'I;16'):
                # Only whoever made the image knows which of these numbers are black and white.
                raise DataError(f'its pixels are {image.mode} numbers: expected 8 bits a channel')
            image = ImageOps.exif_transpose(image)
            return np.asarray(image.convert('RGB'))[..., ::-1].copy()
    except DataError:
        raise
    except Image.UnidentifiedImageError as error:
        raise DataError('it is no image, or damaged') from error
    except Exception as error:  # half a dozen kinds for damaged and for huge images
        raise DataError(f'it is damaged ({error})') from error


def read_video(path: Path) -> tuple[Iterator[np.ndarray], float, int]:
    """Read a video.

    Args:
        path: of the file.

    Returns:
        Its frames, (H, W, 3), BGR, uint8, which are read one by one; frames a second; and the
        number of frames that the file says it has, which may be 0 if it does not say.

    Raises:
        DataError: it cannot be read; the message does not name it.
    """
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise DataError('it is no video, or damaged, or of a kind that OpenCV cannot read')
    count = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    return _frames(video), video.get(cv2.CAP_PROP_FPS) or 25.0, count


def _frames(video: cv2.VideoCapture) -> Iterator[np.ndarray]:
    try:
        while True:
            good, frame = video.read()
            if not good:
                return
            yield frame
    finally:
        video.release()

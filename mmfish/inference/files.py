"""From files to pictures and ``predictions.json``, with whatever predicts."""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from mmfish.atomic import write_atomically
from mmfish.errors import DataError, UsageError
from mmfish.inference.coco import Predictions, coco_results
from mmfish.inference.drawing import Colour, draw_predictions
from mmfish.inference.inputs import Decoder, File, decode_image, find_files, read_image, read_video

RESULTS = 'predictions.json'


@dataclass
class Summary:
    """What came of the inputs.

    Attributes:
        results: the file of the predictions.
        images: how many images were predicted, frames of videos included.
        objects: how many objects were found in them.
        problems: the files that could not be predicted, each with the reason.
        others: the files in the folders that are no images by their names.
    """

    results: Path
    images: int = 0
    objects: int = 0
    problems: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f'Left out: {problem}' for problem in self.problems]
        if self.others:
            more = f' and {len(self.others) - 10} more' if len(self.others) > 10 else ''
            names = ', '.join(self.others[:10])
            lines.append(f'Left out, no images by their names: {names}{more}')
        if self.images:
            left_out = len(self.problems) + len(self.others)
            lines.append(
                f'Found: {self.objects} objects in {self.images} images'
                + (f'; {left_out} other files were left out' if left_out else '')
            )
            lines.append(f'Pictures are in {self.results.parent}, results in {self.results}')
        # File names need not be text.
        return '\n'.join(lines).encode(errors='backslashreplace').decode()


class Frame(NamedTuple):
    """An image to be predicted.

    Attributes:
        image: as the decoder gives it.
        name: of the file, for a frame of a video with its number: ``clip.mp4#000012``.
        picture: where its picture goes.
        rate: of a video, frames a second; None for an image.
    """

    image: np.ndarray
    name: str
    picture: Path
    rate: float | None = None


def check_inputs(
    inputs: str | os.PathLike | Iterable[str | os.PathLike],
    out: str | os.PathLike,
    score_thr: float,
    batch_size: int,
) -> tuple[list[File], list[str]]:
    """Find the files to be predicted, and check the arguments of `predict_files`.

    Args:
        inputs: as for `find_files`.
        out: as for `predict_files`.
        score_thr: likewise.
        batch_size: likewise.

    Returns:
        The files, and the names of other files in the folders.

    Raises:
        UsageError: a number is out of its range, or ``out`` is a file, or among the inputs.
        DataError: an input is not there, or there is no image.
    """
    if not 0 <= score_thr <= 1:
        raise UsageError(f'--score-thr must be from 0 to 1, but is {score_thr}')
    if batch_size < 1:
        raise UsageError(f'--batch-size must be at least 1, but is {batch_size}')
    files, others, folders = find_files(inputs)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UsageError(f'--out {out} is a file: give a folder for the pictures and {RESULTS}')
    place = out.resolve()
    folders = [folder.resolve() for folder in folders]
    # Both where a link to an image lies, and where the image itself does.
    paths = [file.path for file in files]
    sources = {*folders, *(p.resolve().parent for p in paths), *(p.parent.resolve() for p in paths)}
    if any(place in (source, *source.parents) for source in sources) or any(
        folder in place.parents for folder in folders
    ):
        raise UsageError(
            f'--out {out} holds inputs, or lies in a folder of inputs: give another folder, '
            'because nothing is written beside the inputs'
        )
    return files, others


def predict_files(
    predict: Callable[[list[np.ndarray]], list[Predictions]],
    files: Sequence[File],
    out: str | os.PathLike,
    classes: Sequence[str],
    *,
    others: Sequence[str] = (),
    palette: Sequence[Colour] | None = None,
    score_thr: float = 0.3,
    batch_size: int = 1,
    decode: Decoder = decode_image,
    track: Callable[..., Iterable] = lambda frames, total: frames,
) -> Summary:
    """Predict files, draw what was found, and write it down.

    A file that cannot be read is left out, and the rest goes on. Prints a summary.

    Args:
        predict: takes a list of images as ``decode`` returns them, gives the predictions of each.
        files: images and videos.
        out: folder for the pictures, which have the names of the images, and ``predictions.json``.
            That is written atomically, when all is done.
        classes: names of the classes.
        others: names of files that are left out, for the summary.
        palette: as for `draw_predictions`.
        score_thr: what has a lower score is neither drawn nor written down.
        batch_size: how many images are predicted at once.
        decode: as for `read_image`.
        track: shows progress while it passes the images on: takes an iterable and ``total``.

    Returns:
        What came of them.

    Raises:
        DataError: no image could be read.
        UsageError: ``out`` cannot be written to.
    """
    out = Path(out)
    summary = Summary(out / RESULTS, others=list(others))
    videos = {file: _count(file) for file in files if file.is_video}
    total = sum(videos.get(file, 1) for file in files)
    results: list[dict[str, Any]] = []
    frames = iter(track(_read(files, out, decode, summary.problems), total=total))
    with contextlib.closing(_Pictures()) as pictures:
        while batch := list(itertools.islice(frames, batch_size)):
            batch = [frame for frame in batch if frame is not None]
            found = predict([frame.image for frame in batch]) if batch else []
            for frame, predictions in zip(batch, found, strict=True):
                predictions = predictions.above(score_thr)
                summary.images += 1
                summary.objects += len(predictions.boxes)
                results += coco_results(predictions, summary.images, frame.name, classes)
                pictures.write(frame, draw_predictions(frame.image, predictions, classes, palette))
    if summary.images:
        with _writing(summary.results):
            write_atomically(summary.results, json.dumps(results).encode())
    print(summary)
    if not summary.images:
        raise DataError(
            f'no image could be read, of {len(files)} ({summary.problems[0]}): expected images '
            'that OpenCV or Pillow can open'
        )
    return summary


def _read(
    files: Sequence[File], out: Path, decode: Decoder, problems: list[str]
) -> Iterator[Frame | None]:
    """Read the images, and the frames of the videos, one by one.

    Args:
        files: images and videos.
        out: folder for their pictures.
        decode: as for `read_image`.
        problems: the files that cannot be read are added here.

    Yields:
        The images; None in the place of one that cannot be read, for the progress bar.
    """
    for file in files:
        try:
            if not file.is_video:
                kept = file.path.suffix.lower() in ('.jpg', '.jpeg', '.png')
                picture = out / (file.name if kept else f'{file.name}.png')
                yield Frame(read_image(file.path, decode), file.name, picture)
                continue
            kept = file.path.suffix == '.mp4'
            picture = out / (file.name if kept else f'{file.name}.mp4')
            images, rate, count = read_video(file.path)
            number = -1
            for number, image in enumerate(images):
                yield Frame(image, f'{file.name}#{number:06d}', picture, rate)
            if number + 1 < count or number < 0:
                raise DataError(f'only {number + 1} of {count} frames could be read')
        except DataError as error:
            problems.append(f'{file.name}: {error}')
            yield None


def _count(video: File) -> int:
    """The number of frames of a video, as far as it says so."""
    try:
        return read_video(video.path)[2]
    except DataError:
        return 1


class _Pictures:
    """Writes pictures into files, and those of the frames of a video into one video."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.video: cv2.VideoWriter | None = None

    def write(self, frame: Frame, picture: np.ndarray) -> None:
        """Write a picture.

        Args:
            frame: what it shows. The frames of a video come in their order.
            picture: (H, W, 3), BGR, uint8.

        Raises:
            UsageError: it cannot be written.
        """
        if frame.rate is None:
            path = frame.picture
            good, data = cv2.imencode(path.suffix, picture)
            if not good:  # a JPEG has at most 65500 pixels a side
                path = path.with_name(f'{path.name}.png')
                data = cv2.imencode('.png', picture)[1]
            with _writing(path):
                write_atomically(path, data.tobytes())
            return
        if frame.picture != self.path:
            self.close()
            with _writing(frame.picture):
                frame.picture.parent.mkdir(parents=True, exist_ok=True)
                frame.picture.unlink(missing_ok=True)  # it may be a link to an input
            # The only codec that OpenCV's own packages can write into an mp4 on every platform.
            codec = cv2.VideoWriter_fourcc(*'mp4v')
            size = picture.shape[1], picture.shape[0]
            self.path = frame.picture
            self.video = cv2.VideoWriter(str(self.path), codec, frame.rate, size)
            if not self.video.isOpened():
                raise UsageError(f'{self.path} cannot be written: OpenCV finds no way to do so')
        self.video.write(picture)

    def close(self) -> None:
        """Finish the video that is being written, if any."""
        if self.video is not None:
            self.video.release()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Make a sentence of what goes wrong in the block, which writes a file."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f'{path} cannot be written ({error.strerror or error}): make room there, or give '
            'another folder'
        ) from error

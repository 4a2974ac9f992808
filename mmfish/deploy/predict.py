"""Predictions of an exported detector for images, folders and videos of one's own."""

import os
from collections.abc import Iterable
from functools import partial

import numpy as np

from mmfish.deploy.runner import Detector
from mmfish.errors import UsageError
from mmfish.inference.coco import Predictions
from mmfish.inference.files import Summary, check_inputs, predict_files

try:
    from rich.progress import track
except ImportError:

    def track(frames: Iterable, description: str, total: int) -> Iterable:
        """No progress bar: rich comes with MMEngine, and a file can be run without either."""
        return frames


def predict_exported(
    file: str | os.PathLike,
    inputs: str | os.PathLike | Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    config: str | os.PathLike | None = None,
    score_thr: float = 0.3,
    device: str | None = None,
    batch_size: int = 1,
) -> Summary:
    """Do what `mmfish.engine.predict.run_predict` does, with a file that `mmfish.export` wrote.

    Args:
        file: the ``.onnx`` file of a detector.
        inputs: as for `run_predict`.
        out: likewise.
        config: None, because the file has all that is needed in it.
        score_thr: as for `run_predict`.
        device: 'cpu' or None, which is the same.
        batch_size: how many images are read at once. The file takes them one by one.

    Returns:
        What came of the inputs.

    Raises:
        DataError: an input is not there, there is no image, or none could be read.
        UsageError: the file cannot be used or is not of a detector, an argument is out of its
            range, or ``out`` is a file, among the inputs, or cannot be written to.
    """
    if config is not None:
        raise UsageError(f'leave out --config {config}: {file} has all that is needed in it')
    if device not in (None, 'cpu'):
        raise UsageError(f'--device {device} cannot be used with {file}: give cpu, or leave it out')
    files, others = check_inputs(inputs, out, score_thr, batch_size)
    detector = Detector(file)
    if 'boxes' not in detector.metadata['outputs']:
        raise UsageError(
            f'{file} is a classifier, and predict draws what detectors find: call '
            'mmfish.deploy.Detector for its scores'
        )
    return predict_files(
        partial(_predict_images, detector),
        files,
        out,
        detector.classes or (),
        others=others,
        palette=detector.metadata.get('palette'),
        score_thr=score_thr,
        batch_size=batch_size,
        track=partial(track, description='Predicting'),
    )


def _predict_images(detector: Detector, images: list[np.ndarray]) -> list[Predictions]:
    # Images are read in BGR, and a file takes RGB.
    found = [detector(image[..., ::-1]) for image in images]
    return [Predictions(f['boxes'], f['scores'], f['labels'], f.get('masks')) for f in found]

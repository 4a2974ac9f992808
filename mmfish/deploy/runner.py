"""Runs exported files. It needs NumPy, OpenCV or Pillow, and ONNX Runtime or OpenVINO.

Nothing here may import torch or a package of OpenMMLab.
"""

import json
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from mmfish.errors import UsageError

try:
    import cv2
except ImportError:
    cv2 = None
try:
    from PIL import Image, ImageOps
except ImportError:
    Image = None
try:
    import onnxruntime
except ImportError:
    onnxruntime = None
try:
    import openvino
except ImportError:
    openvino = None

Array = np.ndarray
# What each runtime computes in, whatever the weights are kept in.
PRECISIONS = dict(onnxruntime=('f32',), openvino=('f32', 'bf16'))


class Detector:
    """A detector or classifier in a file that `mmfish.export` wrote.

    Args:
        file: the ``.onnx`` file.
        runtime: 'onnxruntime' or 'openvino'. Defaults to ONNX Runtime if it is installed, or else
            OpenVINO.
        precision: 'f32', or with OpenVINO 'bf16', which is faster where the processor can compute
            in it, and less exact. Defaults to 'f32'.
        threads: of the CPU. Defaults to as many as the runtime takes by itself.

    Attributes:
        classes (list[str]): their names; an object's label is an index into them.
        score_thr (float): the lowest score of the objects that the file gives.
        metadata (dict[str, Any]): all that the file says of itself; docs/export.md has a table.

    Raises:
        UsageError: there is no such file, it is none of ours, the runtime is not installed, or it
            has no such precision.
    """

    def __init__(
        self,
        file: str | os.PathLike,
        runtime: str | None = None,
        *,
        precision: str = 'f32',
        threads: int | None = None,
    ) -> None:
        file = os.fspath(file)
        if not os.path.isfile(file):
            raise UsageError(f'there is no file {file}: expected one that mmfish.export wrote')
        runtime = runtime or ('onnxruntime' if onnxruntime or not openvino else 'openvino')
        if runtime not in ('onnxruntime', 'openvino'):
            raise UsageError(f'runtime must be onnxruntime or openvino, got {runtime!r}')
        if not (onnxruntime if runtime == 'onnxruntime' else openvino):
            raise UsageError(f'{file} needs the package {runtime}: `pip install {runtime}`')
        if precision not in PRECISIONS[runtime]:
            raise UsageError(
                f'{runtime} does not compute in {precision!r}: expected '
                f'{" or ".join(PRECISIONS[runtime])}'
            )
        try:
            if runtime == 'onnxruntime':
                metadata, self._run = _onnxruntime(file, threads)
            else:
                metadata, self._run = _openvino(file, precision, threads)
        except Exception as error:  # whatever the runtimes make of a damaged file
            raise UsageError(
                f'{runtime} cannot read {file} ({str(error).strip().partition(chr(10))[0]}): '
                'expected a file that mmfish.export wrote'
            ) from error
        if not {'outputs', 'pipeline'} <= metadata.keys():
            raise UsageError(
                f'{file} has no description of its images in it: expected a detector or classifier '
                'that mmfish.export wrote'
            )
        self.metadata = {name: json.loads(value) for name, value in metadata.items()}
        self.classes = self.metadata['classes']
        self.score_thr = self.metadata.get('score_thr')

    def __call__(self, image: Array | str | os.PathLike) -> dict[str, Array]:
        """Run on an image.

        Args:
            image: (H, W, 3), uint8, RGB; or the path of an image.

        Returns:
            For a detector, best first, 'boxes' (n, 4) as x1, y1, x2, y2 in pixels of the image,
            'scores' (n,), 'labels' (n,), and 'masks' (n, H, W), bool, if it has masks. For a
            classifier 'scores' (classes,).

        Raises:
            UsageError: it is no image.
        """
        image = image if isinstance(image, np.ndarray) else read_image(image)
        found = self.raw(image)
        if 'masks' in found:
            least = self.metadata['mask_thr']
            size = image.shape[:2]
            pairs = zip(found['masks'], found['boxes'], strict=True)
            masks = [paste_mask(mask, box, size) >= least for mask, box in pairs]
            found['masks'] = np.stack(masks) if masks else np.zeros((0, *size), bool)
        return found

    def raw(self, image: Array) -> dict[str, Array]:
        """As calling it, but the masks are probabilities within their boxes, (n, 28, 28)."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UsageError(
                f'expected an image of shape (height, width, 3) and type uint8, got '
                f'{image.shape} and {image.dtype}'
            )
        resized, scale = prepare(image, self.metadata['pipeline'])
        outputs = self._run(np.ascontiguousarray(resized[None]))
        found = dict(zip(self.metadata['outputs'], outputs, strict=True))
        if 'boxes' not in found:
            return dict(scores=found['scores'][0])
        found['boxes'] = found['boxes'] / np.tile(np.float32(scale), 2)
        return found


def prepare(image: Array, pipeline: list[dict[str, Any]]) -> tuple[Array, tuple[float, float]]:
    """Resize, pad or crop an image as the test pipeline of a config does.

    Args:
        image: (H, W, 3), RGB.
        pipeline: the transforms, each with its type and arguments; those in `TRANSFORMS`.

    Returns:
        The image, and the factors by which width and height were resized.
    """
    scale = np.ones(2)
    for step in pipeline:
        arguments = {name: value for name, value in step.items() if name != 'type'}
        before = image.shape[1::-1]
        image = TRANSFORMS[step['type']](image, **arguments)
        if step['type'].startswith('Resize'):
            scale = scale * image.shape[1::-1] / before
    return image, tuple(scale)


def _resize(
    image: Array,
    scale: int | list[int],
    keep_ratio: bool = False,
    interpolation: str = 'bilinear',
    backend: str = 'cv2',
    **_: Any,
) -> Array:
    height, width = image.shape[:2]
    size = [scale, scale] if isinstance(scale, int) else scale
    if keep_ratio:
        factor = min(max(size) / max(height, width), min(size) / min(height, width))
        size = [int(width * factor + 0.5), int(height * factor + 0.5)]
    return _to_size(image, size, interpolation, backend)


def _resize_edge(
    image: Array,
    scale: int,
    edge: str = 'short',
    backend: str = 'cv2',
    interpolation: str = 'bilinear',
) -> Array:
    height, width = image.shape[:2]
    of_width = dict(short=width < height, long=width > height, width=True, height=False)[edge]
    size = (
        (scale, int(scale * height / width)) if of_width else (int(scale * width / height), scale)
    )
    return _to_size(image, size, interpolation, backend)


def _to_size(image: Array, size: tuple[int, int], interpolation: str, backend: str) -> Array:
    if backend == 'cv2' and cv2:
        flag = dict(bicubic='cubic', bilinear='linear', lanczos='lanczos4')
        name = f'INTER_{flag.get(interpolation, interpolation)}'.upper()
        return cv2.resize(image, size, interpolation=getattr(cv2, name))
    if not Image:
        raise UsageError(f'resizing needs the package {"pillow" if cv2 else "opencv-python"}')
    picture, method = Image.fromarray(image), Image.Resampling[interpolation.upper()]
    if backend == 'pillow':
        return np.asarray(picture.resize(size, method))
    # As OpenCV, which does not smooth an image that it makes smaller. Pillow's `resize` does.
    x, y = picture.width / size[0], picture.height / size[1]
    return np.asarray(picture.transform(size, Image.Transform.AFFINE, (x, 0, 0, 0, y, 0), method))


def _pad(
    image: Array,
    size: list[int] | None = None,
    size_divisor: int | None = None,
    pad_to_square: bool = False,
    pad_val: Any = 0,
) -> Array:
    height, width = image.shape[:2]
    if pad_to_square:
        height = width = max(height, width)
    if size_divisor:
        height, width = (-(-side // size_divisor) * size_divisor for side in (height, width))
    elif size:
        width, height = size
    value = pad_val.get('img', 0) if isinstance(pad_val, dict) else pad_val
    padded = np.empty((height, width, 3), image.dtype)
    padded[:] = value if isinstance(value, int | float) else value[::-1]  # configs count blue first
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


def _center_crop(image: Array, crop_size: int | list[int]) -> Array:
    width, height = [crop_size] * 2 if isinstance(crop_size, int) else crop_size
    top = max(0, round((image.shape[0] - height) / 2))
    left = max(0, round((image.shape[1] - width) / 2))
    return image[top : top + height, left : left + width]


TRANSFORMS: dict[str, Callable[..., Array]] = dict(
    Resize=_resize, ResizeEdge=_resize_edge, Pad=_pad, CenterCrop=_center_crop
)


def paste_mask(mask: Array, box: Array, size: tuple[int, int]) -> Array:
    """Draw a mask into its box.

    Args:
        mask: probabilities, (28, 28).
        box: x1, y1, x2, y2 in pixels of the image.
        size: height and width of the image.

    Returns:
        Probabilities, (height, width), float32, between the mask's pixels interpolated; 0 outside.
    """

    def weights(low: float, high: float, pixels: int, cells: int) -> Array:
        if high <= low:
            return np.zeros((pixels, cells), np.float32)
        position = (np.arange(pixels) + 0.5 - low) / (high - low) * cells - 0.5
        return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(cells))).astype(np.float32)

    x1, y1, x2, y2 = box.astype(float)
    rows = weights(y1, y2, size[0], mask.shape[0])
    columns = weights(x1, x2, size[1], mask.shape[1])
    return rows @ mask @ columns.T


def read_image(path: str | os.PathLike) -> Array:
    """Read an image file, turned as its EXIF data says.

    Returns:
        (H, W, 3), uint8, RGB.

    Raises:
        UsageError: there is no such file, or it is no image.
    """
    try:
        if cv2:
            content = np.fromfile(path, np.uint8)
            image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
            if image is None:
                raise ValueError('it is damaged or something else')
            return image[..., ::-1]
        if not Image:
            raise UsageError('reading images needs the package opencv-python or pillow')
        with Image.open(path) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert('RGB'))
    except (OSError, ValueError) as error:
        raise UsageError(f'{path} cannot be read as an image ({error})') from error


Runner = Callable[[Array], list[Array]]


def onnxruntime_session(
    file: str | os.PathLike, threads: int | None = None, **options: Any
) -> 'onnxruntime.InferenceSession':
    """Load a file into ONNX Runtime; ``options`` are attributes of its `SessionOptions`."""
    settings = onnxruntime.SessionOptions()
    for name, value in dict(options, intra_op_num_threads=threads or 0).items():
        setattr(settings, name, value)
    providers = onnxruntime.get_available_providers()
    return onnxruntime.InferenceSession(os.fspath(file), settings, providers=providers)


def openvino_model(
    model: 'str | openvino.Model',
    precision: str = 'f32',
    threads: int | None = None,
    **options: Any,
) -> 'openvino.CompiledModel':
    """Load a file, or a model that is read, for the CPU; ``options`` are properties of it."""
    # Without the hint it computes in bfloat16 wherever the processor can.
    options['INFERENCE_PRECISION_HINT'] = precision
    if threads:
        options['INFERENCE_NUM_THREADS'] = threads
    return openvino_core().compile_model(model, 'CPU', options)


@cache
def openvino_core() -> 'openvino.Core':
    """The only one of this process.

    Each keeps a stack for signal handlers (``sigaltstack``) and puts its predecessor's back when it
    goes. Once several have gone in the order in which they came, that one is unmapped, and the next
    signal, Ctrl-C or a child's end, is a segmentation fault.
    """
    return openvino.Core()


def _onnxruntime(file: str, threads: int | None) -> tuple[dict[str, str], Runner]:
    session = onnxruntime_session(file, threads)
    metadata = session.get_modelmeta().custom_metadata_map
    return metadata, lambda image: session.run(None, {'image': image})


def _openvino(file: str, precision: str, threads: int | None) -> tuple[dict[str, str], Runner]:
    model = openvino_core().read_model(file)
    metadata = model.get_rt_info('framework').value
    compiled = openvino_model(model, precision, threads)
    return metadata, lambda image: [array.copy() for array in compiled(image).values()]

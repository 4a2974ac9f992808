"""Images and videos in, pictures and ``predictions.json`` out, whatever predicts.

It takes NumPy, OpenCV and Pillow, and nothing else.
"""

from mmfish.errors import UsageError

try:
    import cv2  # noqa: F401
    import PIL  # noqa: F401
except ImportError as error:
    raise UsageError(
        f'drawing pictures needs the packages opencv-python and pillow ({error}): `pip install '
        'opencv-python-headless pillow`'
    ) from error

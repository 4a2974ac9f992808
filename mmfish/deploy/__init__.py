"""Models as ONNX files: writing them, and running them without torch and the OpenMMLab packages."""

from importlib import import_module

from mmfish.deploy.runner import Detector
from mmfish.stack import check_stack

__all__ = ['Detector', 'export']


def __getattr__(name: str) -> object:
    # Exporting takes all of MMDetection and MMPretrain, which running a file must not.
    if name == 'export':
        check_stack()
        return import_module('mmfish.deploy.exporter').export
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

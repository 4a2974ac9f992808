"""This room takes neither PyTorch nor a package of OpenMMLab."""

import ast
import sys
from pathlib import Path

import pytest

import mmfish.inference

FILES = sorted(Path(mmfish.inference.__file__).parent.glob('*.py'))
NEEDED = {*sys.stdlib_module_names, 'numpy', 'cv2', 'PIL'}


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.name)
def test_only_numpy_opencv_and_pillow_are_needed(file):
    imported = set()
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    allowed = ('mmfish.atomic', 'mmfish.errors', 'mmfish.inference.')
    others = {name for name in imported if not name.startswith(allowed)}
    assert {name.partition('.')[0] for name in others} <= NEEDED

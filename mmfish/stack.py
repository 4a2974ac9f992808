"""What mmfish stands on: torch, torchvision, MMEngine, MMCV with its ops, MMDetection, MMPretrain.

`check_stack` runs first on ``import mmfish``, so that an unusable environment is one sentence
and not a traceback from deep inside another package. It imports none of them, it only looks at
their files. And it asks for modules, never for distributions: OneDL and OpenMMLab publish the
same modules under different names.
"""

from __future__ import annotations

import re
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

# The modules, and the names under which OneDL, the maintained line, publishes them.
MODULES = {
    'torch': 'torch',
    'torchvision': 'torchvision',
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmpretrain': 'onedl-mmpretrain',
}
TORCH_MIN, TORCH_END = (2, 4), (2, 14)
# Full releases only: builds such as '2.6.0a0+ecf3bae' pair as whoever built them chose.
RELEASE = re.compile(r'(\d+)\.(\d+)\.\d+(?:\+(cpu|cu\d\d)\d*)?')


class StackError(RuntimeError):
    """The installed packages cannot carry mmfish.

    No ImportError: MMEngine passes over those when it looks for a scope, and would say that FishNet
    is in no registry.
    """


def check_stack() -> None:
    """Raise `StackError` with what is wrong and what to do, if anything is.

    Raises:
        StackError: A module is missing, torch or torchvision have the wrong version, or mmcv
            came without its compiled ops.
    """
    problem = missing_modules() or torch_problem() or torchvision_problem() or ops_problem()
    if problem:
        raise StackError(problem)


def missing_modules() -> str | None:
    """A sentence about the modules that are not installed, if any."""
    missing = [name for name in MODULES if folder(name) is None]
    if not missing:
        return None
    torches = [name for name in missing if 'torch' in name]
    mms = [name for name in missing if name not in torches]
    commands = []
    if torches:
        commands.append(f'`pip install {" ".join(torches)}`')
    if mms:
        names = ' '.join(MODULES[name] for name in mms)
        commands.append(
            f'`pip install --no-build-isolation {names}` '
            f"({' '.join(mms)} where the other mm* packages are OpenMMLab's own)"
        )
    return (
        f'mmfish needs {", ".join(missing)}, which {sys.executable} does not have: '
        f'run {", then ".join(commands)}.'
    )


def torch_problem() -> str | None:
    """A sentence about a torch outside the range that mmfish supports."""
    found = version('torch')
    numbers = re.match(r'(\d+)\.(\d+)', found)
    if not numbers or TORCH_MIN <= (int(numbers[1]), int(numbers[2])) < TORCH_END:
        return None
    return (
        f'mmfish needs torch >=2.4,<2.14 (from 2.14 on torch takes C++20, which the ops of mmcv '
        f'are not built with) and found torch {found}: install torch 2.11.0 with torchvision '
        f'0.26.0, then mmcv again.'
    )


def torchvision_problem() -> str | None:
    """A sentence about a torchvision that was built for another torch."""
    torch, vision = version('torch'), version('torchvision')
    ours, theirs = RELEASE.fullmatch(torch), RELEASE.fullmatch(vision)
    if not ours or not theirs:
        return None
    # Since torch 2.0 came with torchvision 0.15, the two have counted up together.
    expected = int(ours[2]) + 15
    same_build = not ours[3] or not theirs[3] or ours[3] == theirs[3]
    if int(theirs[2]) == expected and same_build:
        return None
    return (
        f'torchvision {vision} was built for another torch than the {torch} that is installed: '
        f'install torchvision 0.{expected} from where that torch came from.'
    )


def ops_problem() -> str | None:
    """A sentence about an mmcv without compiled ops."""
    mmcv = folder('mmcv')
    if mmcv is None or PathFinder.find_spec('mmcv._ext', [str(mmcv)]):
        return None
    return (
        f'mmcv in {mmcv} has no compiled ops (no mmcv._ext), which is what a build with build '
        'isolation leaves: uninstall it and run `MMCV_WITH_OPS=1 pip install '
        '--no-build-isolation --no-cache-dir onedl-mmcv` (mmcv where the other mm* packages are '
        "OpenMMLab's own)."
    )


def folder(module: str) -> Path | None:
    """Where a package lies; None if it is not there, or a mere folder of that name is."""
    try:
        spec = find_spec(module)
    except ValueError:  # something in sys.modules under that name that is no installed package
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


def version(module: str) -> str:
    """The version in a package's ``version.py``, read without importing it; '' if unknown."""
    location = folder(module)
    file = location / 'version.py' if location else None
    if file is None or not file.is_file():
        return ''
    found = re.search(r'^__version__\b[^=]*=\s*[\'"]([^\'"]+)', file.read_text(), re.MULTILINE)
    return found[1] if found else ''

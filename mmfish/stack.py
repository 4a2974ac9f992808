"""What mmfish stands on: torch, torchvision, MMEngine, MMCV with its ops, MMDetection, MMPretrain.

Two steps of ``import mmfish`` turn an unusable environment into one sentence, instead of a
traceback from deep inside another package. `check_stack` only looks at files and imports nothing.
`load_ops` then imports MMCV's compiled ops, which MMDetection would import right after. Both ask
for modules, never for distributions: OneDL and OpenMMLab publish the same modules under different
names.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    """A line of packages: the requirements of ``requirements/``, as arguments of ``pip install``.

    Attributes:
        torch: torch and torchvision.
        build: what compiling MMCV's ops takes, and what they are compiled against.
        packages: the requirement that brings each module.
    """

    torch: str
    build: str
    packages: dict[str, str]


ONEDL = Line(
    torch='torch==2.11.0 torchvision==0.26.0',
    build='"setuptools>=80,<82" wheel packaging ninja psutil',
    packages={
        'mmengine': 'onedl-mmengine==0.10.12',
        'mmcv': 'onedl-mmcv==2.3.6',
        'mmdet': 'onedl-mmdetection==3.5.1',
        'mmpretrain': 'onedl-mmpretrain==1.3.6',
    },
)
OPENMMLAB = Line(
    torch='torch==2.4.1 torchvision==0.19.1',
    build='"setuptools<70" wheel packaging ninja psutil "numpy<2" "opencv-python<4.12"',
    packages={
        'mmengine': 'mmengine==0.10.7',
        'mmcv': 'mmcv==2.1.0',
        'mmdet': 'mmdet==3.3.0',
        'mmpretrain': 'mmpretrain==1.2.0',
    },
)
MODULES = ('torch', 'torchvision', *ONEDL.packages)
# The versions of torch that mmfish supports: from the first, and before the second.
TORCH = (2, 4), (2, 14)
# torchvision 0.15 came with torch 2.0, and both counted up together until torch 2.14.
TORCHVISION_AHEAD = 15
# Where the launchers that MMEngine knows (torchrun, MPI, Slurm) tell a process its rank in the run,
# and its rank on the machine. The first variable that is set counts: torchrun and MPI may have been
# started by Slurm.
RANKS = ('RANK', 'OMPI_COMM_WORLD_RANK', 'SLURM_PROCID')
LOCAL_RANKS = ('LOCAL_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'SLURM_LOCALID')
# Releases of torch 2 and torchvision 0. Others pair in ways that are not known here: builds such as
# '2.6.0a0+ecf3bae' as whoever built them chose.
RELEASE = re.compile(r'[02]\.(\d+)\.(\d+)(?:\+(cpu|cu\d\d)\d*)?')


class StackError(RuntimeError):
    """The installed packages cannot carry mmfish.

    It is no ImportError, because MMEngine ignores those when it imports the registry of a scope:
    users would read that FishNet is in no registry.
    """


def check_stack() -> None:
    """Look for what is missing or does not fit, without importing any of it.

    Raises:
        StackError: a module is missing, torch is too old, torchvision was built for another torch,
            or mmcv has no compiled ops. The message says what to do.
    """
    problem = missing_modules() or torch_problem() or torchvision_problem() or ops_problem()
    if problem:
        raise StackError(problem)


def load_ops() -> None:
    """Import MMCV's compiled ops.

    Whether they load decides what is usable: newer versions of torch and Python are fine where
    they do.

    Raises:
        StackError: the ops do not load. The message says why and what to do.
    """
    # These come first, so that only what is wrong with the ops is taken for a problem of the ops.
    import_module('torch')
    import_module('mmcv')
    try:
        import_module('mmcv._ext')
    except ImportError as error:
        raise StackError(
            compiler_problem()
            or f'the compiled ops of mmcv in {folder("mmcv")} do not load with torch '
            f'{version("torch")} ({error}), most likely because they were compiled for another '
            f'one: {compile_ops()}.'
        ) from error


def missing_modules() -> str | None:
    """A sentence about the modules that are not installed, if any."""
    missing = [name for name in MODULES if folder(name) is None]
    if not missing:
        return None
    line = installed_line()
    commands = []
    packages = ' '.join(line.packages[name] for name in missing if name in line.packages)
    prepare = line.build if 'mmcv' in missing else ''
    if 'torch' in missing or ('mmcv' in missing and compiler_problem()):
        prepare = f'{line.torch} {prepare}'.strip()
    elif 'torchvision' in missing:
        commands.append(install_torchvision())
    if prepare:
        commands.append(f'`pip install {prepare}`')
    if packages:
        commands.append(f'`pip install --no-build-isolation --no-cache-dir {packages}`')
    return (
        f'mmfish needs {", ".join(missing)}, which {sys.executable} does not have: '
        f'run {", then ".join(commands)}.'
    )


def torch_problem() -> str | None:
    """A sentence about a torch that is too old, or too new for mmcv's ops to be compiled for it.

    Where mmcv has ops, `load_ops` tells whether they load, whatever the version of torch.
    """
    found = numbers('torch')
    if found and found < TORCH[0]:
        return (
            f'mmfish needs torch 2.4 or newer and found torch {version("torch")}: '
            f'{compile_ops(with_torch=True)}.'
        )
    return None if has_ops() else compiler_problem()


def torchvision_problem() -> str | None:
    """A sentence about a torchvision that was built for another torch."""
    torch, vision = RELEASE.fullmatch(version('torch')), RELEASE.fullmatch(version('torchvision'))
    if not torch or not vision:
        return None
    same_build = not torch[3] or not vision[3] or torch[3] == vision[3]
    same_release = int(torch[1]) + TORCHVISION_AHEAD == int(vision[1])
    if (same_build and same_release) or numbers('torch') >= TORCH[1]:
        return None
    return (
        f'torchvision {vision[0]} was built for another torch than the {torch[0]} that is '
        f'installed: run {install_torchvision()}.'
    )


def ops_problem() -> str | None:
    """A sentence about an mmcv without compiled ops."""
    if has_ops() or folder('mmcv') is None:
        return None
    return (
        f'mmcv in {folder("mmcv")} has no compiled ops (no mmcv._ext), which is what a build with '
        f'build isolation leaves: {compile_ops()}.'
    )


def compiler_problem() -> str | None:
    """A sentence about a torch for which mmcv's ops cannot be compiled."""
    found = numbers('torch')
    if not found or found < TORCH[1]:
        return None
    return (
        f'the ops of mmcv cannot be compiled for torch {version("torch")}, because from 2.14 on '
        'torch takes C++20 and the build of mmcv passes -std=c++17: '
        f'{compile_ops(with_torch=True)}.'
    )


def compile_ops(*, with_torch: bool = False) -> str:
    """What to do about missing ops, or about ops that were compiled for another torch.

    Args:
        with_torch: to install another torch first, because mmfish cannot use the installed one.
    """
    line = installed_line()
    first = f'{line.torch} {line.build}' if with_torch else line.build
    return (
        f'run `pip install {first}`, then `pip install --force-reinstall --no-deps '
        f'--no-build-isolation --no-cache-dir {line.packages["mmcv"]}`'
    )


def install_torchvision() -> str:
    """The command that installs the torchvision for the torch that is installed."""
    torch = RELEASE.fullmatch(version('torch'))
    if not torch or numbers('torch') >= TORCH[1]:
        return '`pip install --no-deps torchvision`, in the version that was built for your torch'
    pin = f'0.{int(torch[1]) + TORCHVISION_AHEAD}.{torch[2]}'
    return (
        f'`pip install --force-reinstall --no-deps "torchvision=={pin}"` (with the --index-url of '
        'your torch, if you gave one)'
    )


def installed_line() -> Line:
    """The line that the installed packages are of; OneDL's if there are none."""
    files = [version_file(module) for module in ONEDL.packages if folder(module)]
    # OneDL's packages ask there for the version of their distribution, 'onedl-mmcv' for example.
    return OPENMMLAB if files and not any('onedl' in text for text in files) else ONEDL


def first_rank() -> bool:
    """Whether this is the first rank of a run."""
    return _is_first(RANKS)


def first_rank_of_machine() -> bool:
    """Whether this is the first of the ranks that a launcher has started on this machine."""
    return _is_first(LOCAL_RANKS)


def has_ops() -> bool:
    """Whether mmcv has compiled ops, for whichever torch."""
    mmcv = folder('mmcv')
    return mmcv is not None and PathFinder.find_spec('mmcv._ext', [str(mmcv)]) is not None


def folder(module: str) -> Path | None:
    """Where a package lies; None if it is not there, or if only a folder of that name is."""
    try:
        spec = find_spec(module)
    except ValueError:  # something in sys.modules under that name that is no installed package
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


def version(module: str) -> str:
    """The version in a package's ``version.py``, read without importing it; '' if unknown."""
    text = version_file(module)
    found = re.search(r'^__version__\b[^=]*=\s*[\'"]([^\'"]+)', text, re.MULTILINE)
    return found[1] if found else ''


def version_file(module: str) -> str:
    """What a package's ``version.py`` holds; '' without one."""
    location = folder(module)
    file = location / 'version.py' if location else None
    return file.read_text(encoding='utf-8') if file and file.is_file() else ''


def numbers(module: str) -> tuple[int, int] | None:
    """The first two numbers of a package's version; None if unknown."""
    found = re.match(r'(\d+)\.(\d+)', version(module))
    return (int(found[1]), int(found[2])) if found else None


def _is_first(variables: tuple[str, ...]) -> bool:
    return next((os.environ[name] for name in variables if name in os.environ), '0') == '0'

"""`mmfish.stack` in environments that lack something.

Each is a folder of links to the installed packages, less what the test is about, that a Python
of its own uses in place of its site-packages.
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mmfish.stack import (
    MODULES,
    ONEDL,
    OPENMMLAB,
    check_stack,
    installed_line,
)

REQUIREMENTS = Path(__file__).resolve().parents[1] / 'requirements'
# What the commands say, for the line of packages that is installed.
LINE = installed_line()
REINSTALL_MMCV = (
    '`pip install --force-reinstall --no-deps --no-build-isolation --no-cache-dir '
    f'{LINE.packages["mmcv"]}`'
)


def installed(module: str) -> Path:
    return Path(find_spec(module).origin).parent


@pytest.fixture
def site(tmp_path) -> Path:
    for module in MODULES:
        (tmp_path / module).symlink_to(installed(module))
    (tmp_path / 'mmfish').symlink_to(installed('mmfish'))
    return tmp_path


def run(site: Path, code: str, **env: str) -> subprocess.CompletedProcess:
    """Run code with the packages in ``site`` and no others (``-S``: no site-packages)."""
    return subprocess.run(
        [sys.executable, '-S', '-c', code],
        cwd=site,
        env={**os.environ, 'PYTHONPATH': str(site), **env},
        capture_output=True,
        text=True,
    )


def run_beside_everything(site: Path, code: str, **env: str) -> subprocess.CompletedProcess:
    """Run code with the packages in ``site`` before all others that are installed."""
    path = os.pathsep.join([str(site), str(installed('mmcv').parent)])
    return run(site, code, **{**env, 'PYTHONPATH': path})


def complaint(result: subprocess.CompletedProcess) -> str:
    """What a Python that ended with a `StackError` said, which must be one sentence."""
    assert result.returncode == 1, result.stderr
    error, _, said = result.stderr.strip().splitlines()[-1].partition(': ')
    assert error == 'mmfish.stack.StackError', result.stderr
    assert said.endswith('.')
    return said


def import_complaint(site: Path) -> str:
    # Without torch, mmfish can be imported, and says what it needs when that is used.
    use = 'import mmfish' if (site / 'torch').exists() else 'import mmfish; mmfish.plug_in'
    return complaint(run(site, use))


def replace(site: Path, module: str, version: str) -> None:
    """Put an empty package of some version in the place of a module."""
    (site / module).unlink()
    (site / module).mkdir()
    (site / module / '__init__.py').touch()
    (site / module / 'version.py').write_text(
        f"__all__ = ['__version__']\n__version__ = '{version}'\n"
    )


def open_up(site: Path, module: str) -> Path:
    """Make the link to a package a folder of links to its files, one of which can be replaced."""
    (site / module).unlink()
    (site / module).mkdir()
    for file in installed(module).iterdir():
        (site / module / file.name).symlink_to(file)
    return site / module


def claim_version(site: Path, module: str, version: str) -> None:
    """Let the installed package say that it is of some version."""
    file = open_up(site, module) / 'version.py'
    text = file.read_text()
    file.unlink()
    file.write_text(re.sub(r'^__version__ = .*', f"__version__ = '{version}'", text, flags=re.M))


def ops(mmcv: Path) -> Path:
    return next(mmcv.glob('_ext*'))


def test_the_installed_stack_is_usable():
    check_stack()


def test_the_check_imports_nothing(site):
    code = (
        'import runpy, sys; runpy.run_path("mmfish/stack.py")["check_stack"]();'
        f'print([name for name in {list(MODULES)} if name in sys.modules])'
    )
    result = run(site, code)
    assert (result.stdout.strip(), result.stderr) == ('[]', '')


@pytest.mark.parametrize('line', [ONEDL, OPENMMLAB], ids=['onedl', 'openmmlab'])
def test_the_commands_have_the_pins_of_the_requirements(line):
    name = 'onedl' if line is ONEDL else 'openmmlab'
    prefix = '' if line is ONEDL else 'openmmlab-'

    def pins(file: str) -> set[str]:
        lines = (REQUIREMENTS / f'{file}.txt').read_text().splitlines()
        return {line for line in lines if line and not line.startswith('#')}

    build = set(line.build.replace('"', '').split())
    assert set(line.torch.split()) == pins(f'{prefix}torch')
    assert build | set(line.packages.values()) == pins(f'{prefix}build') | pins(name)


@pytest.mark.parametrize('module', MODULES)
def test_a_missing_module_is_named(site, module):
    (site / module).unlink()
    said = import_complaint(site)
    assert said.startswith(f'mmfish needs {module}, which {sys.executable} does not have: run `pip')
    if module in LINE.packages:
        assert f' {LINE.packages[module]}`' in said


def test_several_missing_modules_are_one_sentence_and_torch_comes_first(site):
    for module in ('mmdet', 'mmcv', 'torch', 'torchvision'):
        (site / module).unlink()
    assert import_complaint(site).endswith(
        f'does not have: run `pip install {LINE.torch} {LINE.build}`, '
        'then `pip install --no-build-isolation --no-cache-dir '
        f'{LINE.packages["mmcv"]} {LINE.packages["mmdet"]}`.'
    )


def test_an_empty_environment_gets_the_pins_of_onedl(site):
    for module in MODULES:
        (site / module).unlink()
    assert import_complaint(site).endswith(
        'run `pip install torch==2.11.0 torchvision==0.26.0 "setuptools>=80,<82" wheel packaging '
        'ninja psutil`, then `pip install --no-build-isolation --no-cache-dir '
        'onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmdetection==3.5.1 '
        'onedl-mmpretrain==1.3.6`.'
    )


def test_beside_openmmlab_packages_the_command_installs_openmmlabs(site):
    replace(site, 'mmengine', '0.10.7')
    replace(site, 'mmdet', '3.3.0')
    for module in ('mmcv', 'mmpretrain'):
        (site / module).unlink()
    assert import_complaint(site).endswith(
        'run `pip install "setuptools<70" wheel packaging ninja psutil "numpy<2" '
        '"opencv-python<4.12"`, then `pip install --no-build-isolation --no-cache-dir '
        'mmcv==2.1.0 mmpretrain==1.2.0`.'
    )


@pytest.mark.parametrize(
    ('torch', 'torchvision'),
    [('2.11.0+cu130', '==0.26.0'), ('2.9.1+cpu', '==0.24.1')],
)
def test_a_missing_torchvision_is_advised_to_fit_the_installed_torch(site, torch, torchvision):
    replace(site, 'torch', torch)
    (site / 'torchvision').unlink()
    assert import_complaint(site).endswith(
        f'run `pip install --force-reinstall --no-deps "torchvision{torchvision}"` (with the '
        '--index-url of your torch, if you gave one).'
    )


def test_an_empty_folder_is_not_a_module(site):
    (site / 'mmdet').unlink()
    (site / 'mmdet').mkdir()
    assert import_complaint(site).startswith('mmfish needs mmdet, which')


@pytest.mark.parametrize('version', ['2.3.1+cu121', '1.13.1'])
def test_a_torch_that_is_too_old_is_refused(site, version):
    replace(site, 'torch', version)
    assert import_complaint(site) == (
        f'mmfish needs torch 2.4 or newer and found torch {version}: run `pip install '
        f'{LINE.torch} {LINE.build}`, then {REINSTALL_MMCV}.'
    )


@pytest.mark.parametrize(
    ('torch', 'torchvision', 'wanted'),
    [
        ('2.11.0', '0.25.0', '==0.26.0'),
        ('2.4.1+cu121', '0.20.1+cu121', '==0.19.1'),
        ('2.11.0+cpu', '0.26.0+cu130', '==0.26.0'),
        ('2.11.0+cu130', '0.26.0+cu128', '==0.26.0'),
        ('2.13.0', '0.29.2', '==0.28.0'),
    ],
)
def test_a_torchvision_for_another_torch_is_refused(site, torch, torchvision, wanted):
    replace(site, 'torch', torch)
    replace(site, 'torchvision', torchvision)
    assert import_complaint(site) == (
        f'torchvision {torchvision} was built for another torch than the {torch} that is '
        f'installed: run `pip install --force-reinstall --no-deps "torchvision{wanted}"` (with the '
        '--index-url of your torch, if you gave one).'
    )


@pytest.mark.parametrize(
    ('torch', 'torchvision'),
    [
        ('2.4.0', '0.19.0'),
        ('2.13.0+cpu', '0.28.0+cpu'),
        ('2.11.0+cu126', '0.26.0'),
        ('2.10.0+cu128', '0.25.1+cu126'),
        ('2.6.0a0+ecf3bae40a.nv25.01', '0.20.0a0'),  # a vendor's container pairs as it likes
        ('2.14.0', '0.29.0'),  # the ops decide
        ('2.15.0+cu130', '0.28.0'),
        ('3.0.0', '1.0.0'),
    ],
)
def test_pairs_that_may_work_are_left_to_the_ops(site, torch, torchvision):
    replace(site, 'torch', torch)
    replace(site, 'torchvision', torchvision)
    result = run(site, 'import runpy; runpy.run_path("mmfish/stack.py")["check_stack"]()')
    assert result.returncode == 0, result.stderr


def test_an_mmcv_without_ops_is_refused(site):
    ops(open_up(site, 'mmcv')).unlink()
    assert import_complaint(site) == (
        f'mmcv in {site / "mmcv"} has no compiled ops (no mmcv._ext), which is what a build with '
        f'build isolation leaves: run `pip install {LINE.build}`, then {REINSTALL_MMCV}.'
    )


@pytest.mark.parametrize('version', ['2.14.0', '3.0.0a0+git1234'])
@pytest.mark.parametrize('has_mmcv', [True, False])
def test_a_torch_that_no_ops_can_be_compiled_for_is_refused_without_ops(site, version, has_mmcv):
    replace(site, 'torch', version)
    replace(site, 'torchvision', '0.29.0')
    if has_mmcv:
        ops(open_up(site, 'mmcv')).unlink()
    else:
        (site / 'mmcv').unlink()
    said = import_complaint(site)
    assert f'run `pip install {LINE.torch} {LINE.build}`, then `pip install ' in said
    assert has_mmcv == said.startswith(
        f'the ops of mmcv cannot be compiled for torch {version}, because from 2.14 on torch takes '
        'C++20 and the build of mmcv passes -std=c++17: '
    )


@pytest.mark.slow
@pytest.mark.parametrize('version', [None, '2.14.0'])
def test_ops_that_do_not_load_are_refused(site, version):
    if version:
        claim_version(site, 'torch', version)
        replace(site, 'torchvision', '0.29.0')
    file = ops(open_up(site, 'mmcv'))
    file.unlink()
    file.write_bytes(b'')
    said = complaint(run_beside_everything(site, 'import mmfish'))
    assert said.endswith(f'{LINE.build}`, then {REINSTALL_MMCV}.')
    if version:
        assert said.startswith('the ops of mmcv cannot be compiled for torch 2.14.0, because ')
    else:
        assert said.startswith(f'the compiled ops of mmcv in {site / "mmcv"} do not load with ')
        assert 'file too short' in said

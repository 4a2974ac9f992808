"""`mmfish.stack` in environments that lack something.

Each is a folder of links to the installed packages, less what the test is about, that a Python
of its own uses in place of its site-packages.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mmfish.stack import MODULES, check_stack


def installed(module: str) -> Path:
    return Path(find_spec(module).origin).parent


@pytest.fixture
def site(tmp_path) -> Path:
    for module in MODULES:
        (tmp_path / module).symlink_to(installed(module))
    (tmp_path / 'mmfish').symlink_to(installed('mmfish'))
    return tmp_path


def run(site: Path, code: str) -> subprocess.CompletedProcess:
    """Run code with the packages in ``site`` and no others (``-S``: no site-packages)."""
    return subprocess.run(
        [sys.executable, '-S', '-c', code],
        cwd=site,
        env={**os.environ, 'PYTHONPATH': str(site)},
        capture_output=True,
        text=True,
    )


def complaint(site: Path) -> str:
    """What ``import mmfish`` says, which must be one sentence."""
    result = run(site, 'import mmfish')
    assert result.returncode == 1
    error, _, said = result.stderr.strip().splitlines()[-1].partition(': ')
    assert error == 'mmfish.stack.StackError'
    assert said.endswith('.')
    return said


def replace(site: Path, module: str, version: str) -> None:
    (site / module).unlink()
    (site / module).mkdir()
    (site / module / '__init__.py').touch()
    (site / module / 'version.py').write_text(
        f"__all__ = ['__version__']\n__version__ = '{version}'\n"
    )


def test_the_installed_stack_is_usable():
    check_stack()


def test_the_check_imports_nothing(site):
    code = (
        'import runpy, sys; runpy.run_path("mmfish/stack.py")["check_stack"]();'
        f'print([name for name in {list(MODULES)} if name in sys.modules])'
    )
    result = run(site, code)
    assert (result.stdout.strip(), result.stderr) == ('[]', '')


@pytest.mark.parametrize('module', MODULES)
def test_a_missing_module_is_named(site, module):
    (site / module).unlink()
    said = complaint(site)
    assert said.startswith(f'mmfish needs {module}, which {sys.executable} does not have: run `pip')
    assert f' {MODULES[module]}`' in said


def test_several_missing_modules_are_one_sentence_and_torch_comes_first(site):
    for module in ('mmdet', 'mmcv', 'torchvision'):
        (site / module).unlink()
    assert complaint(site).endswith(
        'does not have: run `pip install torchvision`, '
        'then `pip install --no-build-isolation onedl-mmcv onedl-mmdetection` '
        "(mmcv mmdet where the other mm* packages are OpenMMLab's own)."
    )


def test_a_mere_folder_of_that_name_is_no_module(site):
    (site / 'mmdet').unlink()
    (site / 'mmdet').mkdir()
    assert complaint(site).startswith('mmfish needs mmdet, which')


@pytest.mark.parametrize('version', ['2.14.0', '2.3.1+cu121', '1.13.1', '3.0.0a0+git1234'])
def test_a_torch_outside_the_range_is_refused(site, version):
    replace(site, 'torch', version)
    said = complaint(site)
    assert said.startswith('mmfish needs torch >=2.4,<2.14 (')
    assert f'found torch {version}: install torch 2.11.0' in said


@pytest.mark.parametrize(
    ('torch', 'torchvision', 'wanted'),
    [
        ('2.11.0', '0.25.0', '0.26'),
        ('2.4.1+cu121', '0.20.1+cu121', '0.19'),
        ('2.11.0+cpu', '0.26.0+cu130', '0.26'),
        ('2.11.0+cu130', '0.26.0+cu128', '0.26'),
    ],
)
def test_a_torchvision_for_another_torch_is_refused(site, torch, torchvision, wanted):
    replace(site, 'torch', torch)
    replace(site, 'torchvision', torchvision)
    assert complaint(site) == (
        f'torchvision {torchvision} was built for another torch than the {torch} that is '
        f'installed: install torchvision {wanted} from where that torch came from.'
    )


@pytest.mark.parametrize(
    ('torch', 'torchvision'),
    [
        ('2.4.0', '0.19.0'),
        ('2.13.0+cpu', '0.28.0+cpu'),
        ('2.11.0+cu126', '0.26.0'),
        ('2.10.0+cu128', '0.25.1+cu126'),
        ('2.6.0a0+ecf3bae40a.nv25.01', '0.20.0a0'),  # a vendor's container pairs as it likes
    ],
)
def test_pairs_that_work_are_left_alone(site, torch, torchvision):
    replace(site, 'torch', torch)
    replace(site, 'torchvision', torchvision)
    result = run(site, 'import runpy; runpy.run_path("mmfish/stack.py")["check_stack"]()')
    assert result.returncode == 0, result.stderr


def test_an_mmcv_without_ops_is_refused(site):
    (site / 'mmcv').unlink()
    (site / 'mmcv').mkdir()
    for file in installed('mmcv').iterdir():
        if not file.name.startswith('_ext'):
            (site / 'mmcv' / file.name).symlink_to(file)
    said = complaint(site)
    assert said.startswith('mmcv in ')
    assert 'has no compiled ops' in said
    assert 'pip install --no-build-isolation --no-cache-dir onedl-mmcv`' in said

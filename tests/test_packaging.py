"""The wheel: what is in it, and that an installed one works.

A temporary environment gets the wheel. It sees the installed stack, but not the mmfish that these
tests run on: an editable install hangs on a .pth file, which is not read from there.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest

from mmfish.stack import MODULES
from mmfish.version import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'mask_rcnn_fishnet150_fpn_coco.py'
# The other tools need the folders beside the package: benchmarks, demo, requirements.
TOOLS = {
    *('train.py', 'test.py', 'print_config.py', 'convert_checkpoint.py', 'coco_ap.py'),
    *('dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh', 'reproduce_table3.sh'),
}
SOMEBODY_ELSES = f"""
_base_ = __import__('mmfish').config_path('{CONFIG}')
model = dict(roi_head=dict(bbox_head=dict(num_classes=7), mask_head=dict(num_classes=7)))
"""
EVERY_HELP = """
import pathlib, runpy, sys
import mmfish

assert not {'benchmarks', 'demo'} & set(sys.modules)
for tool in pathlib.Path(mmfish.__file__).parent.glob('.mim/tools/*.py'):
    sys.argv = [str(tool), '--help']
    try:
        runpy.run_path(str(tool), run_name='__main__')
    except SystemExit as end:
        print('helped:', tool.name, end.code)
"""
LOAD = """
import sys
from mmengine.config import Config

assert 'mmfish' not in sys.modules
config = Config.fromfile('theirs.py')
import mmfish

print(mmfish.__file__)
print(config.model.backbone.type, config.model.roi_head.bbox_head.num_classes)
"""


def call(*command: object, cwd: Path) -> str:
    """Run a command and return what it printed, which is also the message if it fails."""
    run = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != 'PYTHONPATH'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


def build(source: Path, out: Path, *options: str) -> Path:
    """Build a wheel; without options by way of an sdist."""
    call(
        *(sys.executable, '-m', 'build', '--no-isolation', *options, '--outdir', out, source),
        cwd=source.parent,
    )
    return next(out.glob('*.whl'))


def environment(folder: Path) -> Path:
    """The interpreter of a new environment that sees the installed packages, less mmfish."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / 'bin' / 'python'
    site = call(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))', cwd=folder)
    stack = {str(Path(find_spec(module).origin).parents[1]) for module in MODULES}
    Path(site.strip(), 'stack.pth').write_text('\n'.join(stack))
    look = 'from importlib.util import find_spec as f; print(bool(f("mmcv")), bool(f("mmfish")))'
    assert call(python, '-c', look, cwd=folder).split() == ['True', 'False']
    return python


def pip_install(python: Path, *what: object) -> None:
    call(
        *(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-index', '--no-deps'),
        *('--no-build-isolation', *what),
        cwd=python.parent,
    )


def files(folder: Path) -> set[str]:
    return {
        file.relative_to(folder).as_posix()
        for file in folder.rglob('*')
        if file.is_file() and '__pycache__' not in file.parts
    }


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """A copy of the source tree with leftovers in it, to build from."""
    copy = tmp_path_factory.mktemp('source') / 'mmfish'
    copy.mkdir()
    for name in (
        'setup.py',
        'pyproject.toml',
        'MANIFEST.in',
        'README.md',
        'LICENSE',
        'model-index.yml',
        'mmfish_command.py',
    ):
        shutil.copy2(ROOT / name, copy)
    for name in ('mmfish', 'configs', 'tools', 'requirements', 'benchmarks', 'demo'):
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns('.mim', '__pycache__')
        )
    for leftover in ('mmfish/.mim/configs/old.py', 'build/lib/mmfish/.mim/configs/old.py'):
        (copy / leftover).parent.mkdir(parents=True)
        (copy / leftover).touch()
    return copy


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory) -> Path:
    return build(source, tmp_path_factory.mktemp('dist'))


def test_the_wheel_holds_the_package_its_configs_and_the_tools_that_need_no_clone(wheel, source):
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    inside = {name.removeprefix('mmfish/') for name in names if name.startswith('mmfish/')}
    package = {name for name in files(source / 'mmfish') if not name.startswith('.mim/')}
    configs = {f'.mim/configs/{name}' for name in files(source / 'configs')}
    tools = {f'.mim/tools/{name}' for name in TOOLS}
    assert inside == package | configs | tools | {'.mim/model-index.yml'}
    beside = {name.split('/')[0].partition('-')[0] for name in names}
    assert beside == {'mmfish', 'mmfish_command.py'}
    print(f'\n{wheel.name}: {len(package)} files, {len(configs)} configs, {len(tools)} tools')


def test_the_wheel_requires_none_of_the_users_packages(wheel):
    with ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        metadata = Parser().parsestr(archive.read(name).decode())
    requires = metadata.get_all('Requires-Dist')
    assert [line for line in requires if 'extra ==' not in line] == []
    assert 'onedl-mmcv==2.3.6; extra == "onedl"' in requires
    assert {'onedl', 'openmmlab', 'runtime', 'dev'} <= set(metadata.get_all('Provides-Extra'))
    assert metadata['Requires-Python'] == '>=3.10'


def test_a_wheel_without_an_sdist_is_the_same_and_does_not_change_the_source(
    wheel, source, tmp_path
):
    before = files(source)
    with ZipFile(build(source, tmp_path, '--wheel')) as direct, ZipFile(wheel) as by_sdist:
        assert set(direct.namelist()) == set(by_sdist.namelist())
    new = {name.split('/')[0] for name in files(source) - before}
    assert new <= {'build', 'mmfish.egg-info'}


def test_configs_and_tools_of_the_installed_wheel_work(wheel, tmp_path):
    python = environment(tmp_path / 'env')
    pip_install(python, wheel)
    theirs = tmp_path / 'theirs'
    theirs.mkdir()
    (theirs / 'theirs.py').write_text(SOMEBODY_ELSES)
    location, values = call(python, '-W', 'ignore', '-c', LOAD, cwd=theirs).splitlines()[-2:]
    assert Path(location).is_relative_to(tmp_path / 'env')
    assert values.split()[0] in ('FishNet', 'mmfish.FishNet')
    assert values.split()[1] == '7'
    print(f'\n{SOMEBODY_ELSES.strip()}\n-> {values}, from {location}')

    command = python.with_name('mmfish')
    assert call(command, '--help', cwd=theirs).startswith('usage: mmfish ')
    said = call(command, 'check', cwd=theirs)
    assert f'mmfish: {__version__} ({location.removesuffix("/__init__.py")})\n' in said
    assert 'compiled ops of mmcv on cpu: work\n' in said

    said = call(python, '-W', 'ignore', '-c', EVERY_HELP, cwd=theirs).splitlines()
    helped = {line for line in said if line.startswith('helped:')}
    assert helped == {f'helped: {name} 0' for name in TOOLS if name.endswith('.py')}


def test_an_editable_install_links_to_the_source(source, tmp_path):
    python = environment(tmp_path / 'env')
    pip_install(python, '--editable', source)
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (source / 'mmfish' / '.mim' / name).resolve() == source / name
    code = 'import importlib.util as u; print(u.find_spec("mmfish").origin)'
    assert Path(call(python, '-c', code, cwd=tmp_path).strip()) == source / 'mmfish/__init__.py'
    assert call(python.with_name('mmfish'), '--help', cwd=tmp_path).startswith('usage: mmfish ')


def test_the_wheel_runs_an_exported_file_where_nothing_else_is_installed(wheel, tmp_path):
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    uv = shutil.which('uv', path=beside)
    if not uv:
        pytest.skip('uv is not installed, which makes an environment from the package registry')
    python = tmp_path / 'env' / 'bin' / 'python'
    call(uv, 'venv', '--python', sys.executable, tmp_path / 'env', cwd=tmp_path)
    install = [uv, 'pip', 'install', '--python', python, f'mmfish[runtime] @ {wheel.as_uri()}']
    run = subprocess.run(install, capture_output=True, text=True)
    if run.returncode and 'error sending request' in run.stderr:
        pytest.skip(f'the package registry cannot be reached: {run.stderr.splitlines()[-1]}')
    assert run.returncode == 0, run.stderr
    look = 'from importlib.util import find_spec as f; print([m for m in {!r} if f(m)])'
    assert call(python, '-c', look.format(MODULES), cwd=tmp_path) == '[]\n'
    arguments = ['predict', ROOT / 'demo/shapes_detector.onnx', ROOT / 'demo/shapes_picture.png']
    call(python.with_name('mmfish'), *arguments, '--out', 'found', cwd=tmp_path)
    call(sys.executable, '-m', 'mmfish', *arguments, '--out', tmp_path / 'expected', cwd=ROOT)
    found, expected = (
        json.loads((tmp_path / name / 'predictions.json').read_text())
        for name in ('found', 'expected')
    )
    assert [(one['category_name'], one['file_name']) for one in found] == [
        (one['category_name'], one['file_name']) for one in expected
    ]
    # The versions of the runtime may differ.
    for one, other in zip(found, expected, strict=True):
        assert one['bbox'] == pytest.approx(other['bbox'], abs=0.01)
        assert one['score'] == pytest.approx(other['score'], abs=1e-4)

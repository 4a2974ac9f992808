"""Packaging of mmfish.

``pip install --no-build-isolation -e .`` installs mmfish and nothing else: torch and the mm*
packages are the user's own, and `mmfish.stack` says so where one is missing. The extras
``onedl`` and ``openmmlab`` name the two lines of packages that mmfish works with.
"""

import re
import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# What travels inside the package, where OpenMIM and `mmfish.config_path` look for it.
CARRIED = ('configs', 'tools', 'model-index.yml')
# Each is a file in requirements/.
EXTRAS = ('onedl', 'openmmlab', 'weights', 'convert', 'export', 'runtime', 'digits', 'dev')
# The folders beside the package stay in the clone, and with them the tools that need one.
NEEDS_THE_CLONE = re.compile(r'^from (benchmarks|demo)\b|\brequirements/', re.MULTILINE)


class BuildWithMim(build_py):
    """Put `CARRIED` into ``mmfish/.mim``: copied for a wheel, linked if editable."""

    def run(self) -> None:
        """Build the package, from nothing so that no file of an earlier build slips in."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        package = ROOT if self.editable_mode else Path(self.build_lib)
        mim = package / 'mmfish' / '.mim'
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for name in CARRIED:
            source = ROOT / name
            if self.editable_mode:
                (mim / name).symlink_to(Path('..', '..', name))
            elif source.is_file():
                shutil.copy2(source, mim / name)
            else:
                shutil.copytree(source, mim / name, ignore=left_out)


def left_out(folder: str, names: list[str]) -> list[str]:
    """The files and folders in a folder of `CARRIED` that do not travel in the wheel."""
    ignored = shutil.ignore_patterns('__pycache__', '*.py[cod]')(folder, names)
    tools = [Path(folder, name) for name in names if name.endswith(('.py', '.sh'))]
    return [*ignored, *(tool.name for tool in tools if NEEDS_THE_CLONE.search(tool.read_text()))]


def requirements(name: str) -> list[str]:
    """The packages that ``requirements/<name>.txt`` lists."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


setup(
    name='mmfish',
    version=runpy.run_path(str(ROOT / 'mmfish' / 'version.py'))['__version__'],
    description='FishNet (NeurIPS 2018) as a plug-in for MMDetection',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The mmfish contributors',
    license='Apache-2.0',
    keywords=['computer vision', 'object detection', 'instance segmentation', 'FishNet'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    python_requires='>=3.10',  # a newer one than the classifiers name is a warning of mmfish.stack
    packages=find_packages(include=['mmfish', 'mmfish.*']),
    # Makes an editable install put the whole clone on sys.path, benchmarks/ and demo/ included.
    package_dir={'': '.'},
    py_modules=['mmfish_command'],
    entry_points={'console_scripts': ['mmfish = mmfish_command:main']},
    include_package_data=True,
    zip_safe=False,
    cmdclass={'build_py': BuildWithMim},
    extras_require={name: requirements(name) for name in EXTRAS},
)

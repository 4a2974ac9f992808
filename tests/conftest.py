from collections.abc import Iterator

import pytest
from mmengine.registry import DefaultScope

from demo.shapes import make_shapes


@pytest.fixture(autouse=True)
def _scope_restored() -> Iterator[None]:
    """Reset the scope that a runner leaves behind, in which later tests would look for modules."""
    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """A data set of a few images, in COCO's layout."""
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', train=16, val=4, size=64)

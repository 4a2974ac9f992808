import pytest

from mmfish.datasets import make_shapes


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """A data set of a few images, in COCO's layout."""
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', train=16, val=4, size=64)

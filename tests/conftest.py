import functools
import gc
from collections.abc import Iterator

import pytest

# The stack is imported within the fixtures, because the process that only hands out the tests
# (pytest -n) would import it too, and let all others wait.


def pytest_collection_finish() -> None:
    """Keep what the imports made out of later garbage collections; it stays until the end."""
    gc.freeze()


@pytest.fixture(scope='session', autouse=True)
def _metafiles_read_once() -> Iterator[None]:
    """Keep the metafiles of a package, all of which MMEngine reads for each `mmdet::` in a config.

    That takes most of the time in which a config is read.
    """
    from mmengine.config import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, 'load', functools.cache(utils.load))
        yield


@pytest.fixture(autouse=True)
def _scope_restored() -> Iterator[None]:
    """Reset the scope that a runner leaves behind, in which later tests would look for modules."""
    from mmengine.registry import DefaultScope

    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """A data set of a few images, in COCO's layout."""
    from demo.shapes import make_shapes

    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', train=16, val=4, size=64)

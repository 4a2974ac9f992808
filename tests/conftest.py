import gc
from collections.abc import Iterator

import pytest
from mmengine.registry import DefaultScope


def pytest_collection_finish() -> None:
    """Keep what the imports made out of later garbage collections; it stays until the end."""
    gc.freeze()


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
    # Imported here, because with it comes the whole stack, for which the process that only hands
    # out the tests (pytest -n) would let all others wait.
    from demo.shapes import make_shapes

    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', train=16, val=4, size=64)

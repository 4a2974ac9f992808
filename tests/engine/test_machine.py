from mmfish.engine.machine import describe_machine


def test_the_compilers_are_named_and_no_version_twice():
    found = describe_machine()
    assert {'GCC', 'MMCV compiler', 'CUDA available'} <= found.keys()
    assert not {'PyTorch', 'MMEngine'} & found.keys()

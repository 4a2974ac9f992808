from hashlib import sha256

import pytest

from mmfish.datasets.split import is_validation

NAMES = [f'{i:05d}.jpg' for i in range(1000)]


@pytest.mark.parametrize('fraction', [0.1, 0.2, 0.5])
def test_the_parts_have_about_the_size_asked_for(fraction):
    assert sum(is_validation(name, fraction) for name in NAMES) / 1000 == pytest.approx(
        fraction, abs=0.04
    )


def test_none_and_all_are_possible():
    assert not any(is_validation(name, 0) for name in NAMES)
    assert all(is_validation(name, 1) for name in NAMES)


def test_a_larger_part_has_all_images_of_a_smaller_one():
    small, large = ({n for n in NAMES if is_validation(n, f)} for f in (0.1, 0.3))
    assert small < large


def test_neither_the_ending_nor_the_kind_of_slash_counts():
    for name in NAMES[:50]:
        expected = is_validation(f'folder/{name}', 0.5)
        assert is_validation(f'folder\\{name[:-4]}.png', 0.5) == expected


def test_images_of_one_name_in_several_folders_are_divided():
    assert len({is_validation(f'{i:03d}/image.png', 0.5) for i in range(20)}) == 2


def test_the_split_is_that_of_the_sha256_of_the_name():
    # The first hexadecimal digit says in which sixteenth of all images one is.
    for name in NAMES[:100]:
        first = int(sha256(name[:-4].encode()).hexdigest()[0], 16)
        assert is_validation(name, 0.25) == (first < 4)

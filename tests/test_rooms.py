"""Which part of mmfish may import which; ``python tests/test_rooms.py`` draws it.

The sources are read, not imported. A room is a folder or a lone module of the package;
`benchmarks` and `demo` are the rooms beside it.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the ground up. A room may import the rooms of the floors below its own. The package's own
# __init__.py lies on top of them all.
FLOORS = (
    ('atomic', 'errors', 'stack', 'version'),
    ('whole_stack',),
    ('registry', 'notices', 'inference'),
    ('models',),
    ('checkpoints',),
    ('datasets',),
    ('config',),
    ('engine',),
    ('deploy',),
    ('cli',),
    ('__main__',),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
BESIDE = ('benchmarks', 'demo')
# What measures and shows needs these; the plug-in does not.
NOT_IN_THE_PACKAGE = {*BESIDE, 'tests', 'tools', 'matplotlib', 'sklearn', 'tqdm'}


class Import(NamedTuple):
    """One import: the module that has it, the module that it names, and where."""

    module: str
    target: str
    place: str
    in_function: bool


def modules() -> dict[str, Path]:
    """The files of the package and of the folders beside it, by the names of their modules."""
    found = {}
    for folder in ('mmfish', *BESIDE):
        for file in sorted((ROOT / folder).rglob('*.py')):
            parts = file.relative_to(ROOT).with_suffix('').parts
            if '.mim' not in parts:
                found['.'.join(parts).removesuffix('.__init__')] = file
    return found


MODULES = modules()


def imports_of(module: str) -> Iterator[Import]:
    """Every import in the file of a module, those inside functions included."""
    file = MODULES[module]

    def visit(node: ast.AST, in_function: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            targets = []
            if isinstance(child, ast.Import):
                targets = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ''
                if child.level:  # relative
                    package = (
                        module.split('.') if file.name == '__init__.py' else module.split('.')[:-1]
                    )
                    base = '.'.join(
                        [*package[: len(package) - child.level + 1], *base.split('.')]
                    ).strip('.')
                # `from package import module` names the module.
                names = [f'{base}.{alias.name}' for alias in child.names]
                targets = sorted({name if name in MODULES else base for name in names})
            for target in targets:
                place = f'{file.relative_to(ROOT)}:{child.lineno}'
                yield Import(module, target, place, in_function)
            inside = in_function or isinstance(
                child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
            )
            yield from visit(child, inside)

    yield from visit(ast.parse(file.read_text(encoding='utf-8')), False)


IMPORTS = [found for module in MODULES for found in imports_of(module)]


def room(module: str) -> str:
    """The room that a module lies in; 'mmfish' for the package's own __init__.py."""
    first, *rest = module.split('.')
    return rest[0] if first == 'mmfish' and rest else first


def arrows() -> dict[str, set[str]]:
    """Which rooms each room imports."""
    found = defaultdict(set)
    for one in IMPORTS:
        if one.target.split('.')[0] in ('mmfish', *BESIDE) and room(one.module) != room(one.target):
            found[room(one.module)].add(room(one.target))
    return found


def picture() -> str:
    """The rooms from the top down, each with the rooms that it imports."""
    outgoing = arrows()
    order = [*reversed(BESIDE), 'mmfish', *(name for floor in reversed(FLOORS) for name in floor)]
    rooms = {room(module) for module in MODULES}
    lines = []
    for name in [*order, *sorted(rooms - set(order))]:
        if name in rooms:
            below = sorted(outgoing[name], key=order.index)
            lines.append(f'{name:12} -> {", ".join(below)}' if below else name)
    return '\n'.join(lines)


def test_every_room_is_on_a_floor():
    assert {room(name) for name in MODULES} - {'mmfish', *BESIDE} <= set(FLOOR)


@pytest.mark.parametrize('name', sorted(FLOOR))
def test_a_room_imports_only_the_floors_below(name):
    upward = [
        f'{one.place} imports {one.target}'
        for one in IMPORTS
        if room(one.module) == name
        and one.target.split('.')[0] == 'mmfish'
        and room(one.target) != name
        and FLOOR.get(room(one.target), len(FLOORS)) >= FLOOR[name]
    ]
    assert upward == []


def test_the_package_imports_neither_benchmarks_demo_nor_their_libraries():
    assert [
        f'{one.place} imports {one.target}'
        for one in IMPORTS
        if one.module.split('.')[0] == 'mmfish' and one.target.split('.')[0] in NOT_IN_THE_PACKAGE
    ] == []


def test_no_function_imports_a_module_of_ours_but_those_of_the_command():
    assert [
        f'{one.place} imports {one.target}'
        for one in IMPORTS
        if room(one.module) != 'cli'  # each verb imports what does its work
        and one.in_function
        and one.target.split('.')[0] in ('mmfish', *BESIDE)
    ] == []


@pytest.mark.parametrize('kind', ['modules', 'rooms'])
def test_imports_make_no_circle(kind):
    graph = defaultdict(set)
    if kind == 'rooms':
        graph = arrows()
    else:
        for one in IMPORTS:
            if one.target in MODULES:
                graph[one.module].add(one.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(' <- '.join(error.args[1]))


if __name__ == '__main__':
    print(picture())

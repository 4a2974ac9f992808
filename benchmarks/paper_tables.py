"""The tables of the publications, measured beside published, in Markdown and CSV."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.complexity import build_model, parameter_count
from benchmarks.memory import training_memory
from benchmarks.published import load_published
from demo.logs import Run, read_run, seconds_per_epoch
from demo.markdown import markdown_table

ROOT = Path(__file__).parents[1]
TOLERANCE = 0.3  # AP, or percentage points
FROM_RUNS = {
    'AP': lambda metric: 100 * metric,
    'accuracy': lambda metric: metric,
    'error': lambda metric: 100 - metric,
}


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        published: or None.
        measured: or None.
        digits: after the point.
        state: of the run, in words; empty if there is none.
        finished: whether the run is.
        judged: whether the tolerance applies: to results, not to sizes.
    """

    published: float | None
    measured: float | None
    digits: int
    state: str = ''
    finished: bool = True
    judged: bool = False

    @property
    def difference(self) -> float | None:
        """Measured less published."""
        if self.published is None or self.measured is None:
            return None
        return self.measured - self.published

    @property
    def off(self) -> bool:
        """More than the tolerance away from the published number."""
        if not self.judged or self.difference is None:
            return False
        return abs(round(self.difference, 6)) > TOLERANCE

    def __str__(self) -> str:
        """Measured, then published in brackets; bold with the difference where it is off."""
        brackets = [] if self.published is None else [str(self.published)]
        words = [self.state] if self.state else []
        if self.measured is not None:
            bold = '**' * self.off
            measured = f'{bold}{self.measured:.{self.digits}f}{bold}'
            words = [measured + '*' * (not self.finished)]
            brackets += [f'{self.difference:+.{self.digits}f}'] if self.off else []
        return ' '.join(words + ([f'({", ".join(brackets)})'] if brackets else []))


@dataclass(frozen=True)
class Table:
    """One table of a publication.

    Attributes:
        name: as there.
        caption: what it shows.
        source: where it was published.
        columns: their names.
        rows: name of each row and its cells.
        notes: sentences about it, the sources of single rows among them.
        runs: the runs that it is made of.
    """

    name: str
    caption: str
    source: str
    columns: list[str]
    rows: dict[str, list[Cell]]
    notes: list[str]
    runs: list[Run]


def paper_tables(work_dirs: Path, names: Iterable[str] | None = None) -> list[Table]:
    """Bring together what was published and what the runs have come to.

    Args:
        work_dirs: the folder with a folder for each run, named after its config.
        names: of tables in ``published.json``. Defaults to all.

    Returns:
        The tables, in the order of the data file.
    """
    published = load_published()['tables']
    return [_table(name, published[name], work_dirs) for name in names or published]


def to_markdown(tables: Iterable[Table]) -> str:
    """Tables in Markdown, with the state of their runs below each."""
    parts = [
        'Measured (published). **Bold** with the difference: more than '
        f'{TOLERANCE} points away. *: not of a finished run, see its state.'
    ]
    for table in tables:
        rows = [[name, *map(str, cells)] for name, cells in table.rows.items()]
        parts.append(f'## {table.name}: {table.caption}')
        parts.append(markdown_table(['', *table.columns], rows, numbers=len(table.columns)))
        parts.append(' '.join([f'Published: {table.source}.', *table.notes]))
        if table.runs:
            parts.append('\n'.join(f'- `{run.name}`: {run.state}' for run in table.runs))
    return '\n\n'.join(parts) + '\n'


def to_csv(tables: Iterable[Table]) -> str:
    """Tables as CSV, one line for each number."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(
        ['table', 'row', 'column', 'published', 'measured', 'difference', 'off', 'state']
    )
    for table in tables:
        for name, cells in table.rows.items():
            for column, cell in zip(table.columns, cells, strict=True):
                numbers = (cell.published, cell.measured, cell.difference)
                numbers = ['' if n is None else f'{n:.6g}' for n in numbers]
                off = 'yes' if cell.off else 'no'
                writer.writerow([table.name, name, column, *numbers, off, cell.state])
    return out.getvalue()


def write_paper_tables(work_dirs: Path, out: Path) -> str:
    """Write all tables as ``paper_tables.md`` and ``.csv``.

    Args:
        work_dirs: as for `paper_tables`.
        out: the folder to write to; made where there is none.

    Returns:
        The Markdown.
    """
    tables = paper_tables(work_dirs)
    markdown = to_markdown(tables)
    if not work_dirs.is_dir():
        markdown = f'There is no folder {work_dirs}: nothing has been run there.\n\n{markdown}'
    out.mkdir(parents=True, exist_ok=True)
    (out / 'paper_tables.md').write_text(markdown, encoding='utf-8')
    (out / 'paper_tables.csv').write_text(to_csv(tables), encoding='utf-8')
    return markdown


def _table(name: str, data: dict[str, Any], work_dirs: Path) -> Table:
    runs: list[Run] = []
    rows = {}
    sources: dict[str, list[str]] = {}
    for row in data['rows']:
        row_runs = [read_run(work_dirs / run) for run in row['runs']]
        runs += [run for run in row_runs if run not in runs]
        rows[row['name']] = [
            _cell(column, published, row, row_runs, work_dirs)
            for column, published in zip(data['columns'], row['published'], strict=True)
        ]
        if 'source' in row:
            sources.setdefault(row['source'], []).append(row['name'])
    notes = [data['note']] if 'note' in data else []
    notes += [f'{", ".join(names)}: {source}.' for source, names in sources.items()]
    columns = [
        f'{column["group"]}, {column["name"]}' if 'group' in column else column['name']
        for column in data['columns']
    ]
    return Table(name, data['caption'], data['source'], columns, rows, notes, runs)


def _cell(
    column: dict[str, Any],
    published: float | None,
    row: dict[str, Any],
    runs: list[Run],
    work_dirs: Path,
) -> Cell:
    unit, model = column['unit'], row.get('model')
    if unit == 'seconds':
        run = runs[column['run']]
        return Cell(published, seconds_per_epoch(work_dirs / run.name), 1, run.state)
    if unit == 'change of error':
        of_one = {**column, 'unit': 'error'}
        cells = [_cell(of_one, None, row, [run], work_dirs) for run in runs]
        measured = [cell.measured for cell in cells]
        change = None if None in measured else measured[0] - measured[1]
        unfinished = [cell.state for cell in cells if not cell.finished]
        state = unfinished[0] if unfinished else ''
        return Cell(published, change, 2, state, not unfinished, judged=True)
    if unit in FROM_RUNS:
        digits = 2 if 'error' in unit else 1
        if not runs:
            return Cell(published, None, digits, judged=True)
        run = runs[column.get('run', 0)]
        name = column['metric']
        metric = run.metrics.get(row.get('metrics', {}).get(name, name))
        if metric is None or metric < 0:  # pycocotools says -1 where there is no such object
            state = 'not evaluated' if run.metrics else run.state
            return Cell(published, None, digits, state, run.finished, judged=True)
        measured = FROM_RUNS[unit](metric)
        return Cell(published, measured, digits, run.state, run.finished, judged=True)

    if unit.startswith('parameters'):
        if model is None:
            return Cell(published, None, 2)
        count = _parameters(statistics=unit == 'parameters and statistics', **model)
        return Cell(published, count / 1e6, 2)
    held = _memory(**model)
    if unit == 'memory':
        return Cell(published, held / 1e6, 0)
    return Cell(published, held / _memory(**column['relative_to']), 2)


@cache
def _parameters(name: str, *, statistics: bool, **options: Any) -> int:
    if name.endswith('.py'):
        name = str(ROOT / name)
    return parameter_count(build_model(name, **options), statistics=statistics)


_memory = cache(training_memory)

"""Tables of measured beside published: Markdown, CSV and a picture."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.complexity import build_classifier, parameter_count
from benchmarks.logs import Run, read_run
from benchmarks.memory import training_memory
from benchmarks.published import load_published

TOLERANCE = 0.3  # AP, or percentage points
FROM_RUNS = {
    'AP': lambda metric: 100 * metric,
    'accuracy': lambda metric: metric,
    'error': lambda metric: 100 - metric,
}
COLOURS = {'off': '#f9cfb5', 'close': '#cfe8cf', 'missing': '#ececec', 'plain': '#ffffff'}
INK, PALE = '#222222', '#777777'


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

    @property
    def colour(self) -> str:
        """Its background in the picture, as a key of `COLOURS`."""
        if self.measured is None:
            return 'missing' if self.state else 'plain'
        if not self.judged or self.difference is None:
            return 'plain'
        return 'off' if self.off else 'close'

    def text(self, bold: str = '') -> str:
        """Measured, then published in brackets, with the difference where it is off.

        Args:
            bold: what to put around a measured number that is off.
        """
        brackets = [] if self.published is None else [str(self.published)]
        words = [self.state] if self.state else []
        if self.measured is not None:
            mark = bold if self.off else ''
            measured = f'{mark}{self.measured:.{self.digits}f}{mark}'
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
        lines = [
            '| | ' + ' | '.join(table.columns) + ' |',
            '|---|' + '--:|' * len(table.columns),
        ]
        for name, cells in table.rows.items():
            lines.append(f'| {name} | ' + ' | '.join(cell.text('**') for cell in cells) + ' |')
        parts += [f'## {table.name}: {table.caption}', '\n'.join(lines)]
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


def draw(tables: list[Table], out: Path) -> Path:
    """Draw the tables: green where the measured number is close, orange where it is off.

    Args:
        tables: to draw, one below the other.
        out: the PNG to write. Its folder is made where there is none.

    Returns:
        ``out``.
    """
    line, label, width = 0.36, 2.3, 15.0  # inches
    height = 0.7 + sum((len(table.rows) + 2.6) * line for table in tables)
    figure = Figure(figsize=(width, height), dpi=100, facecolor='white')
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis('off')

    def write(x: float, y: float, text: str, **options: Any) -> None:
        axes.text(x, y, text, **{'va': 'center', 'fontsize': 8, 'color': INK, **options})

    write(0.2, 0.35, 'measured (published)', weight='bold', fontsize=10)
    legend = (
        ('close', f'within {TOLERANCE} points'),
        ('off', f'more than {TOLERANCE} points away'),
        ('missing', 'no result'),
    )
    for number, (colour, text) in enumerate(legend):
        x = 3 + 2.4 * number
        axes.add_patch(Rectangle((x, 0.24), 0.24, 0.22, facecolor=COLOURS[colour]))
        write(x + 0.35, 0.35, text)
    write(10.2, 0.35, '* not of a finished run', color=PALE)

    y = 0.7
    for table in tables:
        write(0.2, y + line / 2, f'{table.name}: {table.caption}', weight='bold', fontsize=10)
        y += line
        cell_width = min((width - label - 0.2) / len(table.columns), 2.4)
        for number, column in enumerate(table.columns):
            x = label + (number + 0.5) * cell_width
            text = column.replace(', ', '\n', 1) if len(table.columns) > 6 else column
            write(x, y + line / 2, text, ha='center', color=PALE, fontsize=7.5)
        y += line
        for name, cells in table.rows.items():
            write(0.2, y + line / 2, name)
            for number, cell in enumerate(cells):
                x = label + number * cell_width
                axes.add_patch(
                    Rectangle(
                        (x + 0.02, y + 0.02),
                        cell_width - 0.04,
                        line - 0.04,
                        facecolor=COLOURS[cell.colour],
                    )
                )
                text = cell.text().replace(' (', '\n(') if cell_width < 1.5 else cell.text()
                colour = PALE if cell.measured is None else INK
                size = 7 if cell_width < 1.5 else 8
                write(
                    x + cell_width / 2,
                    y + line / 2,
                    text,
                    ha='center',
                    color=colour,
                    fontsize=size,
                    linespacing=0.95,
                )
            y += line
        y += 0.6 * line
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out


def write_paper_tables(work_dirs: Path, out: Path) -> str:
    """Write all tables as ``paper_tables.md``, ``.csv`` and ``.png``.

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
    picture = draw(tables, out / 'paper_tables.png')
    picture.with_suffix('.md').write_text(markdown, encoding='utf-8')
    picture.with_suffix('.csv').write_text(to_csv(tables), encoding='utf-8')
    return markdown


def _table(name: str, data: dict[str, Any], work_dirs: Path) -> Table:
    runs: list[Run] = []
    rows = {}
    sources: dict[str, list[str]] = {}
    for row in data['rows']:
        row_runs = [read_run(work_dirs / run) for run in row['runs']]
        runs += [run for run in row_runs if run not in runs]
        rows[row['name']] = [
            _cell(column, published, row.get('model'), row_runs)
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
    column: dict[str, Any], published: float | None, model: dict[str, Any] | None, runs: list[Run]
) -> Cell:
    unit = column['unit']
    if unit in FROM_RUNS:
        digits = 2 if unit == 'error' else 1
        if not runs:
            return Cell(published, None, digits, judged=True)
        run = runs[column.get('run', 0)]
        metric = run.metrics.get(column['metric'])
        if metric is None or metric < 0:  # pycocotools says -1 where there is no such object
            state = 'not evaluated' if run.metrics else run.state
            return Cell(published, None, digits, state, run.finished, judged=True)
        measured = FROM_RUNS[unit](metric)
        return Cell(published, measured, digits, run.state, run.finished, judged=True)

    if unit == 'parameters':
        return Cell(published, None if model is None else _parameters(_key(model)) / 1e6, 2)
    held = _memory(_key(model))
    if unit == 'memory':
        return Cell(published, held / 1e6, 0)
    return Cell(published, held / _memory(_key(column['relative_to'])), 2)


def _key(model: dict[str, Any]) -> str:
    return json.dumps(model, sort_keys=True)


@cache
def _parameters(model: str) -> int:
    return parameter_count(build_classifier(**json.loads(model)))


@cache
def _memory(model: str) -> int:
    return training_memory(**json.loads(model))

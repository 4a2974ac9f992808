"""Tables in Markdown, and their places in a page."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmfish.errors import UsageError


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """A table in Markdown.

    Args:
        head: the names of the columns.
        rows: their cells.
        numbers: how many columns, counted from the right, are aligned to the right.
    """
    rule = '|' + '---|' * (len(head) - numbers) + '--:|' * numbers
    first, *others = (f'| {" | ".join(row)} |' for row in (head, *rows))
    return '\n'.join([first, rule, *others])


def fill_page(page: Path, tables: Mapping[str, str]) -> None:
    """Put tables into a page, between ``<!-- table: NAME -->`` and ``<!-- end -->``.

    Args:
        page: written by hand but for what stands between these marks, which is replaced.
        tables: Markdown by name.

    Raises:
        UsageError: there is no such page, or it lacks the marks of a table; then it is left as it
            was.
    """
    if not page.is_file():
        raise UsageError(f'there is no page {page} to put the tables into: copy one to start from')
    text = page.read_text(encoding='utf-8')
    for name, table in tables.items():
        marks = re.compile(rf'(?s)(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)')
        text, places = marks.subn(lambda m, table=table: f'{m[1]}\n{table}\n\n{m[2]}', text)
        if not places:
            raise UsageError(
                f'{page} has no place for the table {name!r}: expected the lines '
                f'`<!-- table: {name} -->` and `<!-- end -->`'
            )
    page.write_text(text, encoding='utf-8')

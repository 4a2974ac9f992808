"""Table 3 in miniature: `python -m benchmarks.mini` runs what is left, and `--page` shows it."""

import argparse
from fnmatch import fnmatch
from pathlib import Path

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from benchmarks.mini.page import write_page
from benchmarks.mini.plan import plan
from benchmarks.mini.runs import RECORDS, ROOT, Folders, carry_out, read_records, seconds_for
from mmfish.cli import run_tool


def main() -> None:
    """Read the command line, and run what has no record yet, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', metavar='PATTERN', default='*', help='such as "scratch_*seed0"')
    parser.add_argument('--dry-run', action='store_true', help='list what is left, and how long')
    parser.add_argument('--page', action='store_true', help='write the page, and run nothing')
    parser.add_argument('--nuclei', type=Path, default=ROOT / 'data/nuclei')
    parser.add_argument(
        '--fashion-mnist', type=Path, default=Path('/usr/share/datasets/fashion-mnist')
    )
    parser.add_argument('--work-dirs', type=Path, default=ROOT / 'work_dirs/mini')
    parser.add_argument('--records', type=Path, default=RECORDS, help='(%(default)s)')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/claim.md', help='(%(default)s)')
    args = parser.parse_args()
    places = (args.nuclei, args.fashion_mnist, args.work_dirs, args.records)
    folders = Folders(*(place.resolve() for place in places))

    records = read_records(folders.records)
    if args.page:
        write_page(args.out, records)
        return
    left = [run for run in plan() if run.name not in records and fnmatch(run.name, args.only)]
    seconds = [seconds_for(run, records) for run in left]
    if args.dry_run:
        for run, estimate in zip(left, seconds, strict=True):
            print(f'{run.name:60} {estimate / 60:5.1f} min')
        print(f'{len(left)} runs are left, about {sum(seconds) / 3600:.1f} hours')
        return
    for number, run in enumerate(left, 1):
        print(f'{number} of {len(left)}: {run.name}', flush=True)
        record = carry_out(run, folders)
        print(f'    {record["seconds"]:.0f} s: {record["metrics"]}', flush=True)


if __name__ == '__main__':
    run_tool(main)

"""Measure time and memory: `python tools/benchmark.py --step training --rounds 5`."""

import argparse
from itertools import product
from pathlib import Path

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from benchmarks import speed
from benchmarks.performance import update_page
from mmfish.cli import run_tool


def main() -> None:
    """Read the command line, measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kind', choices=speed.KINDS, default='backbone')
    parser.add_argument('--step', choices=speed.MODES, default='inference')
    parser.add_argument('--arch', nargs='+', default=['fishnet150'], help='one table each')
    parser.add_argument('--batch', nargs='+', type=int, default=[1], help='one table each')
    parser.add_argument(
        '--size', nargs='+', type=_size, default=[(800, 1344)], metavar='HxW', help='one table each'
    )
    parser.add_argument('--contestants', nargs='+', metavar='NAME', help='networks, instead of all')
    parser.add_argument('--rounds', type=int, default=5, help='(%(default)s)')
    parser.add_argument('--device', default='cpu', help='cpu, or cuda')
    parser.add_argument('--threads', type=int, default=2, help='of the CPU (%(default)s)')
    parser.add_argument(
        '--rss', action='store_true', help='with --step exported: memory too, of a process for each'
    )
    parser.add_argument(
        '--keep-memory', action='store_true', help='on a CPU: keep what is freed in the process'
    )
    parser.add_argument('--csv', type=Path, metavar='FILE', help='add all figures to this file')
    parser.add_argument('--plot', type=Path, metavar='FILE.png', help='draw the last table')
    parser.add_argument(
        '--page',
        type=Path,
        metavar='FILE.md',
        help='put the tables of docs/performance.md into this page; needs --csv, and measures what '
        'is missing there',
    )
    args = parser.parse_args()
    if args.page:
        if args.csv is None:
            parser.error('--page needs --csv FILE, where its figures are')
        update_page(args.page, args.csv, args.rounds, args.device)
        return

    for arch, batch, size in product(args.arch, args.batch, args.size):
        setting = speed.Setting(
            args.kind, args.step, arch, batch, *size, args.threads, args.keep_memory
        )
        run = speed.benchmark(setting, args.contestants, args.rounds, args.device, args.rss)
        environment = speed.environment(setting, args.device)
        print(f'\n{environment}, {args.threads} threads')
        print(f'{args.kind}, {args.step}, {arch}, batch {batch}, {size[0]}x{size[1]}\n')
        print(speed.table(setting, run))
        if args.csv:
            speed.add_to_csv(args.csv, setting, run, environment)
    if args.plot:
        speed.plot(run, args.plot)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition('x')
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f'expected HxW, as 800x1344, got {text!r}')
    return int(height), int(width)


if __name__ == '__main__':
    run_tool(main)

"""Measure time and memory: `python tools/benchmark.py --step training --rounds 5`."""

import argparse
from itertools import product
from pathlib import Path

import mmfish.quiet  # noqa: F401  first, because the others print
from benchmarks import speed
from benchmarks.performance import make_page
from mmfish.cli import run_tool


def main() -> None:
    """Read the command line, measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kind', choices=speed.KINDS, default='backbone')
    parser.add_argument('--step', choices=speed.STEPS, default='inference')
    parser.add_argument('--arch', nargs='+', default=['fishnet150'], help='one table each')
    parser.add_argument('--batch', nargs='+', type=int, default=[1], help='one table each')
    parser.add_argument(
        '--size', nargs='+', type=_size, default=[(800, 1344)], metavar='HxW', help='one table each'
    )
    parser.add_argument('--contestants', nargs='+', metavar='NAME', help='instead of all')
    parser.add_argument('--rounds', type=int, default=5, help='that count (%(default)s)')
    parser.add_argument('--device', default='cpu', help='cpu, or cuda')
    parser.add_argument(
        '--keep-memory', action='store_true', help='on a CPU: keep what is freed in the process'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all figures')
    parser.add_argument('--plot', type=Path, metavar='FILE.png', help='draw the last table')
    parser.add_argument(
        '--page',
        type=Path,
        metavar='FILE.md',
        help='measure what docs/performance.md has, whatever else is asked for, and write it; '
        'needs --json, and repeats nothing that is there',
    )
    args = parser.parse_args()
    if args.page:
        if args.json is None:
            parser.error('--page needs --json FILE, where its figures are kept')
        make_page(args.page, args.json, args.rounds, args.device)
        return

    print(speed.environment(args.device))
    runs = []
    for arch, batch, size in product(args.arch, args.batch, args.size):
        run = speed.benchmark(
            args.kind,
            args.step,
            arch,
            batch,
            size,
            rounds=args.rounds,
            names=args.contestants,
            device=args.device,
            keep_memory=args.keep_memory,
        )
        runs.append(run)
        print(f'\n{args.kind}, {args.step}, {arch}, batch {batch}, {size[0]}x{size[1]}\n')
        print(speed.table(run))
    if args.json:
        speed.save_json(args.json, runs, args.device)
    if args.plot:
        speed.plot(runs[-1], args.plot)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition('x')
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f'expected HxW, as 800x1344, got {text!r}')
    return int(height), int(width)


if __name__ == '__main__':
    run_tool(main)

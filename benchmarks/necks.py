"""The paper's neck, FPN on the raw levels of the fish head, beside `FishHeadAdapter` and FPN."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from demo import CONFIGS
from demo.logs import read_logs, read_run
from demo.markdown import markdown_table
from mmfish.engine.run import load_config, run_train

CONFIG = str(CONFIGS / 'mask_rcnn_fishnet77_fpn_shapes.py')
# Both without normalisation of their own, as in the paper's detectors.
NECKS = {
    'FPN': dict(type='FPN', norm_cfg=None),
    'FishHeadAdapter and FPN': dict(type='mmfish.FishFPN', norm_cfg=None),
}
# Of the early training, in which FishNet's gradients are at their largest.
EARLY = 200


@dataclass(frozen=True)
class Outcome:
    """What a training has come to.

    Attributes:
        box_ap: COCO AP of the boxes, 0 to 1.
        mask_ap: of the masks.
        gradient_norms: L2 norm over all parameters in each of the first `EARLY` iterations.
    """

    box_ap: float
    mask_ap: float
    gradient_norms: list[float]


def compare_necks(
    data_root: Path,
    work_dir: Path,
    *,
    iterations: int = 400,
    seeds: Sequence[int] = (0, 1, 2),
) -> dict[str, list[Outcome]]:
    """Train the demo's detector with each neck, clipping off, all else equal.

    Args:
        data_root: folder of the shapes data set.
        work_dir: for logs. Runs that have finished there are not run again.
        iterations: of each training, four images each, in one process.
        seeds: of weights and order of the data; each neck gets all.

    Returns:
        An outcome for each seed, by the name of the neck.
    """
    # Seeds take turns, so that a comparison that was ended early has as many of each neck.
    runs = [(seed, name) for seed in seeds for name in NECKS]
    outcomes: dict[str, list[Outcome]] = {name: [] for name in NECKS}
    for seed, name in runs:
        folder = work_dir / f'{NECKS[name]["type"]}_seed{seed}_{iterations}'
        if not read_run(folder).finished:
            _train(data_root, folder, NECKS[name], iterations, seed)
        outcomes[name].append(read_outcome(folder))
    return outcomes


def read_outcome(work_dir: Path) -> Outcome:
    """Read the logs of a finished training.

    Args:
        work_dir: where it wrote.

    Returns:
        The outcome at the end.
    """
    training, _ = read_logs(work_dir)
    metrics = read_run(work_dir).metrics
    return Outcome(
        metrics['coco/bbox_mAP'],
        metrics['coco/segm_mAP'],
        [training[i]['grad_norm'] for i in sorted(training)[:EARLY]],
    )


def necks_table(outcomes: dict[str, list[Outcome]]) -> str:
    """Median and range over the seeds, in Markdown.

    Args:
        outcomes: as `compare_necks` returns them.
    """
    columns: dict[str, Callable[[Outcome], float]] = {
        'box AP': lambda run: 100 * run.box_ap,
        'mask AP': lambda run: 100 * run.mask_ap,
        'gradient norm at first': lambda run: run.gradient_norms[0],
        'median': lambda run: median(run.gradient_norms),
        'largest': lambda run: max(run.gradient_norms),
    }
    rows = []
    for name, runs in outcomes.items():
        figures = [[value(run) for run in runs] for value in columns.values()]
        cells = (f'{median(f):.1f} ({min(f):.1f} to {max(f):.1f})' for f in figures)
        rows.append([name, *cells])
    return markdown_table(['neck', *columns], rows, numbers=len(columns))


def _train(data_root: Path, work_dir: Path, neck: dict, iterations: int, seed: int) -> None:
    options = {f'model.neck.{key}': value for key, value in neck.items()}
    options |= {
        'train_cfg.max_iters': iterations,
        'train_cfg.val_interval': iterations,
        'param_scheduler.1.T_max': iterations,
        # Nothing is clipped, and the norm is logged, for each iteration. (The file that keeps the
        # config could not be read with an infinite number in it.)
        'optim_wrapper.clip_grad.max_norm': 1e12,
        'default_hooks.logger.interval': 1,
        'default_hooks.checkpoint.interval': iterations,
        'log_processor.window_size': 1,
        'randomness': dict(seed=seed),
        # MMEngine keeps one of each by its name, for as long as the process lasts.
        'experiment_name': work_dir.name,
        'visualizer.name': work_dir.name,
    }
    paths = dict(work_dir=str(work_dir), data_root=str(data_root))
    run_train(load_config(CONFIG, **paths, cfg_options=options))

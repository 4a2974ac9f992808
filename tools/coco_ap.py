"""AP of predictions that a run has kept, by pycocotools and nothing else: no model, no mmfish."""

import argparse
import gzip
import json

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def main() -> None:
    """Read the command line, and print pycocotools' table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('annotations', help="in COCO's format, such as instances_val2017.json")
    parser.add_argument('predictions', help='predictions.bbox.json.gz or predictions.segm.json.gz')
    parser.add_argument(
        '--box-area',
        action='store_true',
        help='tell small, medium and large masks by their boxes, as MMDetection 1.x did',
    )
    args = parser.parse_args()
    with gzip.open(args.predictions) as file:
        predictions = json.load(file)
    kind = 'segm' if any('segmentation' in found for found in predictions) else 'bbox'
    if kind == 'segm' and not args.box_area:
        for found in predictions:
            del found['bbox']  # with it pycocotools takes the area of the box
    coco = COCO(args.annotations)
    evaluation = COCOeval(coco, coco.loadRes(predictions), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()


if __name__ == '__main__':
    main()

"""Data sets in other formats into COCO's, in a layout that `mmfish.own_data` finds."""

import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as run_lengths

from mmfish.datasets.find import ROLES
from mmfish.datasets.split import is_validation
from mmfish.errors import DataError, MissingDataError, UsageError

KNOWN = (
    'known are Pascal VOC (Annotations/*.xml and JPEGImages/), YOLO (data.yaml with images/ and '
    'labels/) and a folder for each image (<id>/images/ with the image, <id>/masks/ with a mask '
    'for each object); data in the format of COCO need no conversion'
)
# What supervision reads, and MMDetection can train on. Prediction takes more (GIF, for example),
# because it falls back to Pillow: see IMAGES in mmfish/inference/inputs.py.
IMAGE_ENDINGS = {'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'}
ROTATED = {5, 6, 7, 8}  # values of the EXIF orientation that turn an image by 90 degrees
ORIENTATION = 0x0112  # the EXIF tag


class Item(NamedTuple):
    """An image to be converted, and where its objects are."""

    split: str | None  # None where the source does not say
    name: str  # of the image in the new data set, if no other has it
    image: Path
    labels: Path  # a file, or the folder of the masks


class Thing(NamedTuple):
    """An object in an image."""

    category: str
    box: tuple[float, float, float, float]  # x, y, width, height in pixels
    mask: dict[str, Any] | None = None  # run lengths
    difficult: bool = False


class Reader:
    """What the three formats have in common.

    Attributes:
        skipped: how often something was left out, by the reason.
        classes: the names in the order of their ids; None where the objects tell.
    """

    classes: Sequence[str] | None = None

    def __init__(self, source: Path) -> None:
        self.source = source
        self.skipped: Counter[str] = Counter()

    def items(self) -> Iterator[Item]:
        """The images."""
        raise NotImplementedError

    def things(self, item: Item, size: tuple[int, int]) -> Iterator[Thing]:
        """The objects in an image of ``size``, (width, height)."""
        raise NotImplementedError


class VOC(Reader):
    """Pascal VOC. Objects that are marked as difficult become crowds, which are not counted."""

    def items(self) -> Iterator[Item]:
        """Each XML file's image; if ImageSets/Main has lists for train and val, those in a list."""
        split_of: dict[str, str] = {}
        for split in ('train', 'val', 'test'):
            file = self.source / 'ImageSets' / 'Main' / f'{split}.txt'
            if file.is_file():
                split_of |= {line.split()[0]: split for line in _lines(file)}
        if not {'train', 'val'} <= set(split_of.values()):
            # Train and val are made of all images that are not for testing.
            split_of = {name: split for name, split in split_of.items() if split == 'test'}
        divided = 'train' in split_of.values()
        files = sorted((self.source / 'Annotations').glob('*.xml'))
        images = [
            f for f in (self.source / 'JPEGImages').iterdir() if f.suffix.lower() in IMAGE_ENDINGS
        ]
        if len(images) > len(files):
            self.skipped['images without an XML file'] += len(images) - len(files)
        images_of: defaultdict[str, list[Path]] = defaultdict(list)
        for image in sorted(images):
            images_of[image.stem].append(image)
        labels_of: dict[Path, Path] = {}
        for labels in files:
            if divided and labels.stem not in split_of:
                self.skipped['images in no list of ImageSets/Main'] += 1
                continue
            image = self._image(labels, images_of[labels.stem])
            if image in labels_of:
                raise DataError(
                    f'{labels_of[image]} and {labels} are both of the image {image}: take one of '
                    'them away'
                )
            labels_of[image] = labels
            yield Item(split_of.get(labels.stem), image.name, image, labels)

    def things(self, item: Item, size: tuple[int, int]) -> Iterator[Thing]:
        """The objects of the XML file."""
        elements = _xml(item.labels).findall('object')
        data = _read_with_supervision('from_pascal_voc', item)
        detections = next(iter(data.annotations.values()))
        polygons = [element.find('polygon') is not None for element in elements]
        for element, thing in zip(
            elements, _things(detections, data.classes, polygons), strict=True
        ):
            yield thing._replace(difficult=(element.findtext('difficult') or '0').strip() == '1')

    def _image(self, labels: Path, namesakes: Sequence[Path]) -> Path:
        """The image of an XML file; ``namesakes`` are the images that have its stem."""
        folder = self.source / 'JPEGImages'
        named = Path((_xml(labels).findtext('filename') or '').strip())
        # Tools that rename files leave the old name in the XML, which another image may have now.
        choices = namesakes or [folder / named.name]
        image = next((choice for choice in choices if choice.name == named.name), choices[0])
        if image.is_file():
            return image
        raise MissingDataError(
            f'{labels} names the image {named}, which is not in {folder}: put it there, or take '
            'the XML file away'
        )


class YOLO(Reader):
    """YOLO's text files, with boxes or polygons."""

    def __init__(self, source: Path, file: Path) -> None:
        super().__init__(source)
        self.file = file
        try:
            self.settings = yaml.safe_load(file.read_text(encoding='utf-8'))
        except (yaml.YAMLError, ValueError) as error:  # ValueError: e.g. the 31st of February
            raise DataError(f'{file} is no YAML: {" ".join(str(error).split())}') from error
        names = self.settings.get('names') if isinstance(self.settings, dict) else None
        if isinstance(names, dict) and set(names) == set(range(len(names))):
            names = [names[i] for i in range(len(names))]
        if not isinstance(names, list) or not names:
            raise DataError(
                f'{file} has no usable names: expected is a list of the classes, as in '
                'names: [cat, dog], or each with its number from 0 on'
            )
        self.classes = [str(name) for name in names]
        twice = [name for name, number in Counter(self.classes).items() if number > 1]
        if twice:
            # MMDetection tells classes by their names.
            raise DataError(
                f'{file} has the names {", ".join(twice)} more than once: expected is another name '
                'for each class'
            )
        folder = self.settings.get('path') or ''
        if not isinstance(folder, str):
            raise DataError(
                f'{file} has the path {folder!r}: expected is a folder, in quotation marks if its '
                'name is a number'
            )
        self.root = Path(file.parent, folder)

    def items(self) -> Iterator[Item]:
        """The images of train, val and test; all in images/ if data.yaml names no such parts."""
        parts = {ROLES[key]: self.settings[key] for key in ROLES if self.settings.get(key)}
        if not parts:
            parts = {None: 'images' if (self.source / 'images').is_dir() else '.'}
        for split, paths in parts.items():
            for path in paths if isinstance(paths, list) else [paths]:
                for image in self._images(str(path)):
                    # If only some of the parts are there, the others are made of it.
                    known = split if split == 'test' or {'train', 'val'} <= parts.keys() else None
                    yield Item(known, image.name, image, self._labels(image))

    def things(self, item: Item, size: tuple[int, int]) -> Iterator[Thing]:
        """The objects of the text file. An image without a file, or an empty one, has none."""
        if not item.labels.is_file():
            self.skipped['label files that are not there (their images are kept)'] += 1
            return
        lines = [line.split() for line in _lines(item.labels)]
        for line in lines:
            if len(line) < 5 or not all(map(_is_number, line)):
                raise DataError(
                    f'{item.labels} has the line {" ".join(line)!r}: expected are the number of a '
                    'class and a box (x, y, width, height) or a polygon (x, y, x, y, ...)'
                )
            if not 0 <= float(line[0]) < len(self.classes):
                raise DataError(
                    f'{item.labels} has an object of class {line[0]}, and {self.file} has names '
                    f'for 0 to {len(self.classes) - 1}'
                )
        data = _read_with_supervision('from_yolo', item, data_yaml_path=str(self.file))
        detections = next(iter(data.annotations.values()))
        # The numbers behind a box are key points if data.yaml says so.
        polygons = [len(line) > 6 and 'kpt_shape' not in self.settings for line in lines]
        yield from _things(detections, self.classes, polygons)

    def _images(self, path: str) -> list[Path]:
        """The images of a folder, or of a file that lists them."""
        # Relative to `path`, or to data.yaml; Roboflow has `../` too much.
        found = [
            Path(base, name)
            for base in (self.root, self.file.parent)
            for name in (path, path.removeprefix('../'))
        ]
        for place in found:
            if place.is_dir():
                files = sorted(place.rglob('*'))
                return [file for file in files if file.suffix.lower() in IMAGE_ENDINGS]
            if place.is_file():
                return [
                    (place.parent if line.startswith('./') else self.root) / line
                    for line in map(str.strip, _lines(place))
                ]
        raise MissingDataError(f'{self.file} names {path}, and there is no {found[0]}')

    def _labels(self, image: Path) -> Path:
        """The text file of an image: in labels/ in the place of the last images/, or beside it."""
        name = f'{image.stem}.txt'
        # A folder called images above the source has nothing to do with it.
        above = self.source if image.is_relative_to(self.source) else Path(image.anchor)
        parts = list(image.parent.relative_to(above).parts)
        if 'images' in parts:
            parts[len(parts) - 1 - parts[::-1].index('images')] = 'labels'
            labels = Path(above, *parts, name)
            if labels.is_file():
                return labels
        return image.parent / name


class Masks(Reader):
    """A folder for each image, with a file for the mask of each object."""

    classes = ('object',)

    def items(self) -> Iterator[Item]:
        """Each <id>/images/*; the folder above the <id> may be that of a part of the data set."""
        for masks in _mask_folders(self.source):
            home = masks.parent
            images = [f for f in (home / 'images').iterdir() if f.suffix.lower() in IMAGE_ENDINGS]
            if len(images) != 1:
                raise DataError(f'{home / "images"} has {len(images)} images: expected is one')
            # The folder's name, because the image may have the same name in all of them.
            name = home.name + images[0].suffix
            split = ROLES.get(home.parent.name.lower()) if home.parent != self.source else None
            yield Item(split, name, images[0], masks)

    def things(self, item: Item, size: tuple[int, int]) -> Iterator[Thing]:
        """The objects of the masks: where a mask is not black."""
        for file in sorted(item.labels.iterdir()):
            if file.suffix.lower() not in IMAGE_ENDINGS:
                continue
            mask = np.asarray(_open(file).convert('L')) > 0
            if mask.shape != size[::-1]:
                raise DataError(
                    f'{file} is a mask of {mask.shape[1]}x{mask.shape[0]} pixels, and its image '
                    f'{item.image.name} has {size[0]}x{size[1]}'
                )
            if not mask.any():
                self.skipped['empty masks'] += 1
                continue
            coded = _run_lengths(mask)
            yield Thing('object', tuple(run_lengths.toBbox(coded).tolist()), coded)


def convert_data(
    source: str | os.PathLike, destination: str | os.PathLike, *, val_fraction: float = 0.2
) -> None:
    """Convert a data set to COCO's format, and print what it has.

    It is written in a layout that `mmfish.own_data` finds: ``annotations/instances_train.json`` and
    ``instances_val.json`` with the images in ``train/`` and ``val/`` (and the same for test, if the
    source has it). Images are hard links where the file system allows it, and copies elsewhere. The
    source stays as it is. The destination appears when all is done, or not at all.

    Args:
        source: a folder in one of these layouts: Pascal VOC (``Annotations``, ``JPEGImages``, and
            ``ImageSets/Main/{train,val,test}.txt`` if it has them), YOLO (``data.yaml`` with the
            parts and names of the classes; text files with boxes or polygons), or a folder for each
            image with ``images/`` and ``masks/``, and in that a mask for each object.
        destination: the folder to write; not there yet, or empty.
        val_fraction: how many of the images are for validation, by `is_validation`, where the
            source is not divided into train and val. From 0 to 1.

    Raises:
        UsageError: the source has no known layout, or there is something at the destination.
        MissingDataError: the source, or an image that it names, is not there.
        DataError: a file of the source cannot be read, or does not fit the others.
    """
    source, destination = Path(source), Path(destination)
    if not 0 <= val_fraction <= 1:
        raise UsageError(f'val_fraction must be from 0 to 1, got {val_fraction}')
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise UsageError(f'{destination} is there already: name a folder that is new or empty')
    if destination.resolve().is_relative_to(source.resolve()):
        raise UsageError(f'{destination} is within {source}, which stays as it is: name another')
    parts: dict[str, list[tuple[Item, tuple[int, int], list[Thing]]]] = {}
    try:
        reader = _reader(source)
        for item in reader.items():
            split = item.split
            if split is None:
                split = 'val' if is_validation(item.name, val_fraction) else 'train'
            size = _size(item.image)
            parts.setdefault(split, []).append((item, size, list(reader.things(item, size))))
    except OSError as error:  # a file that may not be read, a name that is too long
        raise DataError(f'{source} cannot be read: {error}') from error
    if not parts:
        raise MissingDataError(f'{source} has no images: {KNOWN}')

    everything = [thing for part in parts.values() for _, _, things in part for thing in things]
    classes = reader.classes or sorted({thing.category for thing in everything})
    if not classes:
        number = sum(map(len, parts.values()))
        raise DataError(f'{source} has no objects in its {number} images: no class can be learned')
    with_masks = all(thing.mask for thing in everything)
    if not with_masks and any(thing.mask for thing in everything):
        number = sum(thing.mask is not None for thing in everything)
        reader.skipped['masks, because other objects have boxes only'] += number
    contents = {
        split: _coco(parts[split], classes, with_masks, reader.skipped)
        for split in ('train', 'val', 'test')
        if split in parts
    }
    _write(destination, contents, parts)
    print(_summary(contents, classes, reader.skipped))


def _reader(source: Path) -> Reader:
    if not source.is_dir():
        raise MissingDataError(f'there is no folder {source}')
    yamls = [*source.glob('data.yaml'), *source.glob('*.yaml'), *source.glob('*.yml')]
    if (source / 'Annotations').is_dir() and (source / 'JPEGImages').is_dir():
        return VOC(source)
    if yamls:
        return YOLO(source, yamls[0])
    if next(_mask_folders(source), None):
        return Masks(source)
    problem = 'has no known layout' if any(source.iterdir()) else 'is empty'
    raise UsageError(f'{source} {problem}: {KNOWN}')


def _mask_folders(source: Path) -> Iterator[Path]:
    for pattern in ('*/masks', '*/*/masks'):
        for masks in sorted(source.glob(pattern)):
            if masks.is_dir() and (masks.parent / 'images').is_dir():
                yield masks


def _import_supervision() -> ModuleType:
    # Here, because nothing else needs it: it is an extra.
    try:
        import supervision
    except ImportError as error:
        raise UsageError(
            'Pascal VOC and YOLO are read with the package supervision, which cannot be imported '
            f'({error}): pip install "mmfish[convert]"'
        ) from error
    return supervision


def _read_with_supervision(method: str, item: Item, **options: str) -> Any:
    """The data set of one image, in which `supervision` reads its labels.

    It reads folders without those within, keeps the masks of all images in memory, and takes the
    names of labels from those of the images: so it is given a folder of links for each image.
    """
    read = getattr(_import_supervision().DetectionDataset, method)
    with TemporaryDirectory() as folder:
        image = Path(folder, f'image{item.image.suffix}')
        image.symlink_to(item.image.resolve())
        labels = Path(folder, f'image{item.labels.suffix}')
        labels.symlink_to(item.labels.resolve())
        try:
            return read(folder, folder, **options)
        except ValueError as error:
            reason = str(error).replace(str(labels), str(item.labels))
            raise DataError(f'{item.labels} cannot be read: {reason}') from error


def _things(detections: Any, classes: Sequence[str], polygons: Sequence[bool]) -> Iterator[Thing]:
    """The objects of `supervision`'s ``Detections``; ``polygons`` says which have a real mask."""
    for i, has_mask in enumerate(polygons):
        x0, y0, x1, y1 = map(float, detections.xyxy[i])
        mask = _run_lengths(detections.mask[i]) if has_mask else None
        yield Thing(classes[detections.class_id[i]], (x0, y0, x1 - x0, y1 - y0), mask)


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    coded = run_lengths.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(size=coded['size'], counts=coded['counts'].decode())


def _coco(
    part: Iterable[tuple[Item, tuple[int, int], list[Thing]]],
    classes: Sequence[str],
    with_masks: bool,
    skipped: Counter[str],
) -> dict[str, list[dict]]:
    """The content of an annotation file. Boxes are cut off at the border of their image."""
    ids = {name: i for i, name in enumerate(classes, 1)}
    content: dict[str, list[dict]] = dict(
        images=[], annotations=[], categories=[dict(id=i, name=name) for name, i in ids.items()]
    )
    names: set[str] = set()
    for item, (width, height), things in part:
        image_id, path = len(content['images']) + 1, Path(item.name)
        # Images of the same name may come from several folders. Some file systems do not
        # tell small letters from capitals.
        name, number = path.name, image_id
        while name.lower() in names:
            name, number = f'{path.stem}_{number}{path.suffix}', number + 1
        names.add(name.lower())
        content['images'].append(dict(id=image_id, file_name=name, width=width, height=height))
        for thing in things:
            x, y, w, h = thing.box
            x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
            if x1 <= x0 or y1 <= y0:
                skipped['objects without area within their image'] += 1
                continue
            annotation = dict(
                id=len(content['annotations']) + 1,
                image_id=image_id,
                category_id=ids[thing.category],
                bbox=[round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
                area=round((x1 - x0) * (y1 - y0), 2),
                iscrowd=int(thing.difficult),
            )
            if with_masks:
                annotation['segmentation'] = thing.mask
                annotation['area'] = int(run_lengths.area(thing.mask))
            content['annotations'].append(annotation)
    return content


def _write(
    destination: Path,
    contents: Mapping[str, dict],
    parts: Mapping[str, Sequence[tuple[Item, tuple[int, int], list[Thing]]]],
) -> None:
    """Write a data set into a folder beside the destination, which then takes its place."""
    destination = destination.absolute()
    draft = destination.with_name(f'.{destination.name}.{os.getpid()}')
    try:
        (draft / 'annotations').mkdir(parents=True)
        for split, content in contents.items():
            (draft / split).mkdir()
            for (item, _, _), image in zip(parts[split], content['images'], strict=True):
                _link(item.image, draft / split / image['file_name'])
            file = draft / 'annotations' / f'instances_{split}.json'
            file.write_text(json.dumps(content), encoding='utf-8')
        os.replace(draft, destination)
    except OSError as error:
        raise UsageError(f'{destination} cannot be written: {error}') from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _link(image: Path, target: Path) -> None:
    try:
        os.link(image.resolve(), target)
    except FileExistsError:  # a copy would overwrite the image that the target is a link to
        raise
    except OSError:  # another file system, or one without hard links
        shutil.copy2(image, target)


def _summary(contents: Mapping[str, dict], classes: Sequence[str], skipped: Counter[str]) -> str:
    lines = []
    for split, content in contents.items():
        count = Counter(annotation['category_id'] for annotation in content['annotations'])
        objects = ', '.join(f'{count[i]} {name}' for i, name in enumerate(classes, 1))
        lines.append(f'{split}: {len(content["images"])} images; objects: {objects}')
    lines += [f'left out: {number} {reason}' for reason, number in skipped.items()]
    return '\n'.join(lines)


def _open(file: Path) -> Image.Image:
    """An image that has been decoded, so that it is known to be whole."""
    try:
        image = Image.open(file)
        image.load()
    except FileNotFoundError as error:
        raise MissingDataError(f'there is no image {file}') from error
    except Exception as error:  # PIL's decoders raise many kinds: OSError, SyntaxError, ...
        raise DataError(f'{file} is a damaged image, or none: {error}') from error
    if file.suffix.lower() not in IMAGE_ENDINGS:
        raise DataError(
            f'{file} ends in {file.suffix!r}: expected is an image in '
            f'{", ".join(sorted(IMAGE_ENDINGS))}'
        )
    return image


def _size(file: Path) -> tuple[int, int]:
    """Width and height of an image in pixels, as MMDetection loads it: turned as its EXIF says."""
    image = _open(file)
    turned = image.getexif().get(ORIENTATION) in ROTATED
    return image.size[::-1] if turned else image.size


def _xml(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    # ValueError and LookupError: of encodings that Python's parser does not take.
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(
            f'{file} cannot be read as XML ({error}): expected is a whole file in UTF-8'
        ) from error


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise DataError(f'{file} is no text: {error}') from error
    return [line for line in text.splitlines() if line.strip()]


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False

"""Exported files in ONNX Runtime and OpenVINO, to be measured: runs, profiles, memory."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmfish.deploy import Detector
from mmfish.deploy.runner import (
    onnxruntime_session,
    openvino_core,
    openvino_model,
    prepare,
)

try:
    import openvino
    from openvino.preprocess import PrePostProcessor
except ImportError:  # PyTorch is measured without it
    openvino = None


@dataclass(frozen=True)
class Exported:
    """A file, and how it is to be run.

    Attributes:
        file: of a detector, classifier or backbone.
        image: (H, W, 3), uint8, RGB; for a backbone (1, 3, H, W), float32.
        pipeline: what prepares the image, instead of what the file says.
        threads: of the CPU.
        runtime: 'onnxruntime' or 'openvino'.
        precision: 'f32', or with OpenVINO 'bf16'.
        streams: images that OpenVINO computes at once, each by a part of the threads.
    """

    file: Path
    image: np.ndarray
    pipeline: list[dict[str, Any]]
    threads: int
    runtime: str
    precision: str = 'f32'
    streams: int = 1

    @property
    def images(self) -> int:
        """How many of them `load` makes a run of."""
        return 1 if self.streams == 1 else 2 * self.streams

    def load(self) -> Callable[[], object]:
        """Load the file: a function that runs it once."""
        if self.streams > 1:
            return self._load_streams()
        if self.image.ndim == 3:
            options = dict(precision=self.precision, threads=self.threads)
            detector = Detector(self.file, self.runtime, **options)
            detector.metadata['pipeline'] = self.pipeline
            return lambda: detector(self.image)
        if self.runtime == 'openvino':
            request = self._compiled().create_infer_request()
            return lambda: request.infer([self.image])
        session = onnxruntime_session(self.file, self.threads)
        return lambda: session.run(None, dict(image=self.image))

    def operators(self) -> dict[str, float]:
        """Seconds of each kind of operator in one run, as the runtime's own profile has them."""
        image = self.image
        if image.ndim == 3:
            image = prepare(image, self.pipeline)[0][None]
        profile = dict(openvino=self._profile_openvino, onnxruntime=self._profile_onnxruntime)
        return profile[self.runtime](image)

    def _compiled(self, **options: Any) -> 'openvino.CompiledModel':
        model = openvino_core().read_model(self.file)
        if self.image.ndim == 4:
            # Levels in the precision in which they are computed, as within a detector. With an
            # output in float32 OpenVINO keeps all sums that lead to it in float32.
            changes = PrePostProcessor(model)
            for i in range(len(model.outputs)):
                changes.output(i).tensor().set_element_type(getattr(openvino.Type, self.precision))
            model = changes.build()
        return openvino_model(model, self.precision, self.threads, **options)

    def _load_streams(self) -> Callable[[], object]:
        model = self._compiled(PERFORMANCE_HINT='THROUGHPUT', NUM_STREAMS=self.streams)
        requests = openvino.AsyncInferQueue(model, self.streams)

        def run() -> None:
            for _ in range(self.images):
                requests.start_async([self.image])
            requests.wait_all()

        return run

    def _profile_openvino(self, image: np.ndarray) -> dict[str, float]:
        request = self._compiled(PERF_COUNT=True).create_infer_request()
        for _ in range(2):  # the first run prepares
            request.infer([image])
        seconds: Counter[str] = Counter()
        for node in request.profiling_info:
            seconds[node.node_type] += node.real_time.total_seconds()
        return seconds

    def _profile_onnxruntime(self, image: np.ndarray) -> dict[str, float]:
        prefix = f'{self.file}-profile'
        session = onnxruntime_session(
            self.file, self.threads, enable_profiling=True, profile_file_prefix=prefix
        )
        for _ in range(2):
            session.run(None, dict(image=image))
        events = json.loads(Path(session.end_profiling()).read_text())
        start = max(event['ts'] for event in events if event['name'] == 'model_run')
        seconds: Counter[str] = Counter()
        for event in events:
            if event['ts'] >= start and event['name'].endswith('_kernel_time'):
                seconds[event['args']['op_name']] += event['dur'] / 1e6
        return seconds


def peak_rss(load: Callable[[], Callable[[], object]]) -> int:
    """How much this process's peak of resident memory grows while a model is loaded and runs.

    Args:
        load: returns what runs it once.

    Returns:
        Bytes, beyond what the process has when this is called. Linux alone counts them like this.
    """
    Path('/proc/self/clear_refs').write_text('5')  # the peak is now what there is
    before = _memory('VmRSS')
    run = load()
    for _ in range(3):
        run()
    return _memory('VmHWM') - before


def _memory(key: str) -> int:
    status = Path('/proc/self/status').read_text()
    return 1024 * int(re.search(rf'{key}:\s+(\d+) kB', status)[1])

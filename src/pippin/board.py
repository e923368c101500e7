"""TensorBoard's copy of a stage's metrics."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pippin import files


class Board:
    """Scalars for TensorBoard; nothing is written without tensorboardX, and metrics.jsonl has the same numbers.

    Written in this thread: tensorboardX's own thread dies of a full disk, and then the queue before it blocks for ever.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._events: Any = None
        self._flushed_s = 0.0
        if importlib.util.find_spec("tensorboardX") is not None:
            from tensorboardX.event_file_writer import EventsWriter

            with files.full_disk_is_one_line(directory):
                directory.mkdir(parents=True, exist_ok=True)
                self._events = EventsWriter(str(directory / "events"))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        if self._events is None:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        now = time.time()
        with files.full_disk_is_one_line(self._directory):
            for key, value in values.items():
                self._events.write_event(Event(wall_time=now, step=step, summary=scalar(key, value)))
            if now - self._flushed_s > 10:
                self._events.flush()
                self._flushed_s = now

    def close(self) -> None:
        if self._events is not None:
            with files.full_disk_is_one_line(self._directory):
                self._events.close()

"""Who is told what happens during training. Observers watch; nothing they do changes a weight."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from snellen.core.console import Console
from snellen.core.estimate import spoken, told
from snellen.core.run import RunFolder


class Observer(Protocol):
    def __call__(self, event: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class Clocked:
    """Adds the time to each event, then hands it on."""

    def __init__(self, observer: Observer, console: Console) -> None:
        self._observer, self._console = observer, console

    def __call__(self, event: Mapping[str, Any]) -> None:
        self._observer({**event, "seconds": round(self._console.seconds, 3)})

    def close(self) -> None:
        self._observer.close()


class Journal:
    """metrics.jsonl: one event a line, appended as it happens."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def __call__(self, event: Mapping[str, Any]) -> None:
        self._run.append_event(event)

    def close(self) -> None:
        pass


class TensorBoard:
    """The numbers of every event as TensorBoard scalars, by step. Files are made when the first number comes."""

    def __init__(self, run: RunFolder, *, resumed_at: int | None = None) -> None:
        self._run = run
        self._resumed_at = resumed_at
        self._writer: Any = None

    def __call__(self, event: Mapping[str, Any]) -> None:
        scalars = {name: value for name, value in event.items() if "/" in name and isinstance(value, float | int)}
        if "lr" in event:
            scalars["train/lr"] = event["lr"]
        if not scalars:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._open().add_event(Event(wall_time=time.time(), step=event["step"], summary=Summary(value=values)))

    def _open(self) -> Any:
        if self._writer is None:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.summary.writer.event_file_writer import EventFileWriter

            self._writer = EventFileWriter(str(self._run.path))
            if self._resumed_at is not None:  # TensorBoard drops what an earlier, killed process wrote after this step
                log = SessionLog(status=SessionLog.START)
                self._writer.add_event(Event(wall_time=time.time(), step=self._resumed_at + 1, session_log=log))
        return self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class Lines:
    """One line an epoch for the reader."""

    def __init__(self, console: Console, headline: str, epochs: Mapping[str, int]) -> None:
        self._console = console
        self._headline = headline
        self._epochs = epochs

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["event"] != "epoch":
            return
        of = self._epochs[event["phase"]]
        mark = "  best so far" if event["best"] else ""
        headline = event.get(f"val/{self._headline}")  # missing when validation has no case that it could judge
        value = "undefined" if headline is None else told(self._headline, headline)
        self._console.say(
            f"  {event['phase']:4} {event['epoch']:>3}/{of}  train loss {event['train/loss']:.4f}  "
            f"val loss {event['val/loss']:.4f}  val {spoken(self._headline)} "
            f"{value}  {event['seconds']:.0f} s{mark}"
        )

    def close(self) -> None:
        pass

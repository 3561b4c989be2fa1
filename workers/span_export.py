import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from models.tracing.ended_runs import MOST_EVENTS, next_ended_runs
from runtime.logs import log
from runtime.otel_loading import open_tracer
from runtime.postgres import transaction
from runtime.tracing.spans import Tracer
from workers.context import WorkerContext
from workers.run_spans import spans_of

logger = log(__name__)

INTERVAL_SECONDS: Final = 2.0
FLUSH_SECONDS: Final = 30.0
# Time in which a process that ends exports its last spans.
LAST_SPANS_SECONDS: Final = 1.0


@contextmanager
def exporting_spans(context: WorkerContext) -> Iterator[None]:
    """Export the spans of ended runs during the block, if tracing is on."""
    tracer = open_tracer(context.settings, "worker")
    if tracer is None:
        yield
        return
    export = SpanExport(context, tracer)
    export.start()
    yield
    export.stop()
    tracer.close(LAST_SPANS_SECONDS)


class SpanExport(threading.Thread):
    """Exports the spans of runs that ended, apart from the work of a worker that traces: one worker at a time reads on.

    A pass commits its position before it exports, so no span comes twice; a worker that dies in between loses those of
    one pass.
    """

    def __init__(self, context: WorkerContext, tracer: Tracer) -> None:
        super().__init__(name="spans", daemon=True)
        self._context = context
        self._tracer = tracer
        self._ended = threading.Event()

    def run(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            pause = INTERVAL_SECONDS * random.uniform(0.9, 1.1)
            try:
                if self.export() >= MOST_EVENTS:
                    pause = 0.0
            except SQLAlchemyError as error:
                logger.warning("spans of runs wait", error=str(error).partition("\n")[0])
            except Exception:
                logger.exception("spans of runs not exported")

    def stop(self) -> None:
        self._ended.set()

    def export(self) -> int:
        """Export the next runs; return how many positions of the feed were passed."""
        with transaction(self._context.engine) as connection:
            ended = next_ended_runs(connection)
        if ended.left_out:
            logger.warning("spans of runs left out", positions=ended.left_out)
        for run in ended.runs:
            for span in spans_of(run):
                self._tracer.end(span)
        # The queue of the exporter is bounded: the next pass waits until the collector has these.
        self._tracer.flush(FLUSH_SECONDS)
        return ended.passed

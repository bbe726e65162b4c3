"""`/metrics`: what the service counted, in Prometheus' text format (or OpenMetrics, for those who ask for it).

Nothing is labelled by session or by who asks; a route is labelled by its template. With several workers the numbers are those of all.
"""

from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder

from app.host.meter import BOUNDS

COUNTERS: Final = {
    "operations": ("pagewalk_operations", "Operations that sessions committed."),
    "killed": ("pagewalk_kills", "Simulated processes that were killed."),
    "created": ("pagewalk_sessions_created", "Sessions that were created or cloned."),
    "frozen": ("pagewalk_sessions_frozen", "Sessions that a bug of the simulator, or a damaged journal, froze."),
    "differing": ("pagewalk_sessions_differing", "Sessions that came to other figures when they were played again, after a change of version."),
    "slow_readers": ("pagewalk_slow_readers", "Event streams that were closed because the reader took nothing."),
}
GAUGES: Final = {
    "in_flight": ("pagewalk_http_requests_in_flight", "Requests that are being answered."),
    "sessions": ("pagewalk_sessions", "Sessions there are, hibernating ones included."),
    "sessions_live": ("pagewalk_sessions_live", "Sessions whose kernel is in memory."),
    "waiting": ("pagewalk_queue_depth", "Requests that wait for the turn of their session."),
    "long_calls": ("pagewalk_long_calls", "Long calls that are under way or wait for a processor."),
    "journal_waiting": ("pagewalk_journal_waiting", "Operations that wait for their commit."),
    "journal_lag_seconds": ("pagewalk_journal_lag_seconds", "Age of the oldest operation that waits for its commit."),
    "streams": ("pagewalk_event_streams", "Open event streams."),
    "stream_lag": ("pagewalk_event_stream_lag", "Events that happened and that open streams have not sent yet, all together."),
    "stream_lag_highest": ("pagewalk_event_stream_lag_highest", "The same of the stream that is furthest behind."),
    "resident_bytes": ("pagewalk_resident_bytes", "Memory that the service's processes hold."),
    "draining": ("pagewalk_draining", "1 while the service shuts down."),
    "workers": ("pagewalk_workers", "Processes that answered for these numbers."),
}


class Families:
    """A snapshot as the families of prometheus_client."""

    def __init__(self, snapshot: dict[str, Any], version: str) -> None:
        self.snapshot, self.version = snapshot, version

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        counts, gauges = self.snapshot["counts"], self.snapshot["gauges"]
        yield InfoMetricFamily("pagewalk", "What runs here.", {"version": self.version})
        for name, (metric, doc) in COUNTERS.items():
            yield CounterMetricFamily(metric, doc, counts[name])
        faults = CounterMetricFamily("pagewalk_faults", "Page faults that were simulated.", labels=["kind"])
        for kind in ("minor", "major"):
            faults.add_metric([kind], counts[kind])
        yield faults
        for name, (metric, doc) in GAUGES.items():
            if name in gauges:
                yield GaugeMetricFamily(metric, doc, gauges[name])
        yield from self._requests()

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("pagewalk_http_requests", "Requests that were answered.", labels=["method", "route", "status"])
        times: dict[tuple[str, str], list[int]] = {}
        for method, route, status, *row in self.snapshot["rows"]:
            requests.add_metric([method, route, str(status)], row[0])
            sums = times.setdefault((method, route), [0] * len(row))
            for place, value in enumerate(row):
                sums[place] += value
        yield requests
        seconds = HistogramMetricFamily(
            "pagewalk_http_request_duration_seconds", "Time from a request to the beginning of its answer.", labels=["method", "route"]
        )
        for (method, route), (_, total_ns, *buckets) in times.items():
            seconds.add_metric([method, route], list(_cumulated(buckets)), total_ns / 1e9)
        yield seconds


def _cumulated(buckets: list[int]) -> Iterator[tuple[str, float]]:
    below = 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), buckets, strict=True):
        below += count
        yield bound, below


def render(snapshot: dict[str, Any], version: str, accept: str) -> tuple[bytes, str]:
    """The text of a snapshot, and its media type."""
    encode, media = choose_encoder(accept)
    data: bytes = encode(Families(snapshot, version))
    return data, media

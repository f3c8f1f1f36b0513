"""Health and metrics of a running server or hospital over HTTP, from what goes into its log.

    GET /health     200, or 503 once three rounds in a row have failed here; JSON
    GET /metrics    Prometheus' text format 0.0.4

Both say how often and when, nothing of what was summed, and need no password: bind them to an
address that only the monitoring reaches.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from repro.errors import InputError

FAILED_IN_A_ROW = 3  # rounds after which /health is no longer 200
TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Monitor:
    """Counts a log's entries; given to ``Place`` as ``watch``. Safe to share among threads."""

    def __init__(self) -> None:
        self._lock, self._began = threading.Lock(), time.time()
        self._events: Counter[str] = Counter()
        self._messages: Counter[tuple[str, str, str]] = Counter()  # of (phase, way, what)
        self._last: dict[str, float] = {}
        self._round, self._survivors, self._failed = 0, 0, 0

    def __call__(self, event: str, fields: Mapping[str, Any]) -> None:
        """Note one entry of the log, as ``Transcript.append`` takes it."""
        with self._lock:
            if event == "message":
                phase, way = fields["phase"], fields["way"]
                self._messages[phase, way, "messages"] += 1
                self._messages[phase, way, "bytes"] += fields["bytes"]
                return
            self._events[event] += 1
            self._last[event] = time.time()
            if event == "begun":
                self._round = fields["round"]
            elif event in ("sum", "done"):
                self._failed = 0
                self._survivors = len(fields.get("survivors", ()))
            elif event == "failed":
                self._failed += 1

    def health(self) -> tuple[bool, dict[str, Any]]:
        """(well, what ``/health`` says of it). last_sum: seconds since 1970, or null."""
        with self._lock:
            well = self._failed < FAILED_IN_A_ROW
            return well, {
                "status": "ok" if well else "rounds fail",
                "round": self._round,
                "failed_in_a_row": self._failed,
                "last_sum": self._last.get("sum", self._last.get("done")),
            }

    def metrics(self) -> str:
        """All counters, in Prometheus' text format."""
        with self._lock:
            samples: dict[str, tuple[str, str, dict[str, float]]] = {
                "start_time_seconds": ("gauge", "When this process began.", {"": self._began}),
                "round": ("gauge", "The round begun last.", {"": self._round}),
                "survivors": ("gauge", "Hospitals in the last sum.", {"": self._survivors}),
                "events_total": (
                    "counter",
                    "Entries of the log, by event.",
                    {f'{{event="{name}"}}': n for name, n in sorted(self._events.items())},
                ),
                "last_event_timestamp_seconds": (
                    "gauge",
                    "When an event last happened.",
                    {f'{{event="{name}"}}': at for name, at in sorted(self._last.items())},
                ),
            }
            for what in ("messages", "bytes"):
                samples[f"{what}_total"] = (
                    "counter",
                    f"Protocol {what}, by phase and way.",
                    {
                        f'{{phase="{phase}",way="{way}"}}': n
                        for (phase, way, kind), n in sorted(self._messages.items())
                        if kind == what
                    },
                )
        lines = []
        for name, (kind, meaning, values) in samples.items():
            full = f"repro_secagg_{name}"
            lines += [f"# HELP {full} {meaning}", f"# TYPE {full} {kind}"]
            lines += [f"{full}{labels} {value}" for labels, value in values.items()]
        return "\n".join(lines) + "\n"


def serve_pages(monitor: Monitor, host: str, port: int) -> ThreadingHTTPServer:
    """Answer for a monitor from a thread that ends with the process, or by ``shutdown()``.

    port 0: any free one, see ``server_port``. InputError for an address that cannot be had.
    """

    class Pages(BaseHTTPRequestHandler):
        timeout = 10.0  # seconds for a request: nobody holds a thread for longer

        def do_GET(self) -> None:
            if self.path == "/health":
                well, said = monitor.health()
                self._answer(200 if well else 503, "application/json", json.dumps(said))
            elif self.path == "/metrics":
                self._answer(200, TEXT, monitor.metrics())
            else:
                self._answer(404, "text/plain", "/health or /metrics\n")

        def _answer(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Not a line for each scrape."""

    try:
        server = ThreadingHTTPServer((host, port), Pages)
    except OSError as problem:
        raise InputError("monitor", f"{host}:{port}", f"a free address ({problem})") from None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server

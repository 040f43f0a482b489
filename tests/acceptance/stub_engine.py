"""Engines that only count: they refuse beyond a cap as vLLM does, wait a little, and say who asked for what."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StubEngine:
    """One engine until `close`, on a free port of 127.0.0.1 unless told another place."""

    def __init__(self, cap: int | None, seconds: float, host: str = "127.0.0.1", port: int = 0) -> None:
        self.sessions: dict[str, list[str]] = {}
        """Session -> the data-parallel rank that each of its requests named, empty if none."""
        self.refused = 0
        self.largest = 0
        self._cap = cap
        self._seconds = seconds
        self._in_system = 0
        self._lock = threading.Lock()
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                self._answer(200, {"object": "list", "data": [{"id": "m", "object": "model"}], "model_path": "m"})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                session = self.headers.get("X-Session-ID") or self.headers.get("X-SMG-Routing-Key") or ""
                if engine._enter(session, self.headers.get("X-data-parallel-rank") or ""):
                    time.sleep(engine._seconds)
                    engine._leave()
                    message = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
                    self._answer(200, {"id": "1", "object": "chat.completion", "choices": [message]})
                else:
                    self._answer(503, {"error": "queue full"})

            def _answer(self, status: int, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://{host}:{self._server.server_port}"

    def _enter(self, session: str, rank: str) -> bool:
        with self._lock:
            if self._cap is not None and self._in_system >= self._cap:
                self.refused += 1
                return False
            self._in_system += 1
            self.largest = max(self.largest, self._in_system)
            self.sessions.setdefault(session, []).append(rank)
            return True

    def _leave(self) -> None:
        with self._lock:
            self._in_system -= 1

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

"""The real service as a process of its own: start, wait until it is ready, kill, restart on the same data and port.

Nothing here reaches into the service; what the helpers know of it is its environment, its port and its process tree.
"""
from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

PROJECT_ROOT = Path(__file__).resolve().parent.parent
WEBHOOK = (sys.executable, "-W", "ignore", str(PROJECT_ROOT / "webhook.py"))
READY_SECONDS = 120.0
# Below the range that the kernel hands to clients: a port that is free during a restart is not taken by one of ours.
_PORTS = range(15_000, 32_000)
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ServerError(RuntimeError):
    """The process ended, or did not become ready in time. The text ends with the last lines of its log."""


def free_port() -> int:
    """A loopback port nobody listens on."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without settings of a service, plus `more`; quiet, and without Rasa's telemetry."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MINSHENG_")}
    return {**kept, "RASA_TELEMETRY_ENABLED": "false", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(PROJECT_ROOT), **more}


class Process:
    """One program with its children. `ready_path` answers 200 when it serves; `directory` holds its log and is its working directory."""

    def __init__(
        self, name: str, command: Sequence[str], *, port: int, ready_path: str, environment: Mapping[str, str], directory: Path
    ) -> None:
        self.name, self.port = name, port
        self.log = directory / f"{name}.log"
        self._command, self._ready_path, self._environment, self._directory = list(command), ready_path, dict(environment), directory
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Process:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start and return at once."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._directory, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def wait_ready(self, seconds: float = READY_SECONDS) -> float:
        """Seconds waited. Raises ServerError when the process ends or takes too long."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            if not self.running:
                raise ServerError(f"{self.name} ended while starting\n{self.log_end()}")
            if self.answers():
                return time.monotonic() - started
            time.sleep(0.05)
        raise ServerError(f"{self.name} is not ready after {seconds:.0f} s\n{self.log_end()}")

    def answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", self._ready_path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """SIGKILL to the process and its children: no handler runs, nothing is flushed."""
        self._signal(signal.SIGKILL)
        self._wait(10)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help."""
        if self.running:
            self._signal(signal.SIGTERM)
            if not self._wait(10):
                self.kill()

    def log_end(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def rss_mb(self) -> float:
        """Resident memory of the whole process tree, in MiB."""
        return sum(map(_rss, process_tree(self.pid))) / 2**20

    def cpu_seconds(self) -> float:
        """Processor time of the whole process tree so far."""
        return sum(map(_cpu, process_tree(self.pid)))

    def _signal(self, number: int) -> None:
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _wait(self, seconds: float) -> bool:
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


class Server(Process):
    """`python webhook.py` on its own VAR_DIR. `settings` are setting names in lower case without the prefix."""

    def __init__(self, var_dir: Path, *, port: int | None = None, **settings: str) -> None:
        port = port or free_port()
        var_dir.mkdir(parents=True, exist_ok=True)
        self.settings = {"port": str(port), "var_dir": str(var_dir), "rate_limit": "0", **settings}
        environment = clean_environment(**settings_as_variables(self.settings))
        super().__init__("server", WEBHOOK, port=port, ready_path="/readyz", environment=environment, directory=var_dir.parent)


def settings_as_variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"MINSHENG_{name.upper()}": value for name, value in settings.items()}


def process_tree(pid: int) -> list[int]:
    """This process and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            fields = _stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    tree = [pid]
    for member in tree:  # grows while we walk
        tree.extend(children.get(member, ()))
    return tree


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat after the command name, which may itself hold blanks and brackets; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _rss(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[21]) * _PAGE if fields else 0


def _cpu(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0

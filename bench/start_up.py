"""How long `hub serve` takes to its first answer, and what the process weighs then."""

from __future__ import annotations

import asyncio
import compileall
import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench import machine
from bench.load import drive
from bench.report import Figure
from bench.served import ROOT, ServerFailed, free_port, plain_config, shipped_config
from bench.traffic import Traffic, get

START_UNDER = 1.5  # seconds
MEMORY_UNDER = 130.0  # MB
PATIENCE = 30.0


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _start(config: Path, port: int) -> tuple[subprocess.Popen[bytes], float, float]:
    """Start the shipped command; its process, the seconds to its first 200 on /healthz, and the CPU seconds it used until then."""
    log = (config.parent / "server.log").open("wb")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")} | {"HUB_SERVER__PORT": str(port)}
    installed = Path(sys.executable).with_name("hub")
    command = [*([str(installed)] if installed.exists() else [sys.executable, "-m", "hub"]), "serve", "--config", str(config)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)
    log.close()
    while not _healthy(port):
        if process.poll() is not None or time.perf_counter() - began > PATIENCE:
            process.kill()
            process.wait()
            raise ServerFailed(f"hub serve did not come up:\n{(config.parent / 'server.log').read_text(errors='replace')[-2000:]}")
        time.sleep(0.002)
    return process, time.perf_counter() - began, machine.cpu_seconds(process.pid)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def measure(directory: Path, times: int) -> list[Figure]:
    """One Twilio number, and the shipped sandbox; in turn. The first start of each makes its database and does not count."""
    for package in ("hub", "connectors"):
        compileall.compile_dir(ROOT / package, quiet=1)
    port = free_port()
    configs = {"one channel": plain_config(directory / "plain"), "sandbox": shipped_config(directory / "shipped", port)}
    seconds: dict[str, list[float]] = {name: [] for name in configs}
    cpu: dict[str, list[float]] = {name: [] for name in configs}
    weights: dict[str, list[tuple[float, float]]] = {name: [] for name in configs}
    for number in range(times + 1):
        for name, config in configs.items():
            process, wall, used = _start(config, port)
            try:
                if number:
                    seconds[name].append(wall)
                    cpu[name].append(used)
                weigh = number in (1, 2, 3)
                if weigh and name == "one channel":
                    slice_ = asyncio.run(drive(port, Traffic(seed=number).requests(1), 1))
                    if slice_.good != 1:
                        raise ServerFailed(f"the webhook before weighing was answered {dict(slice_.statuses)}")
                if weigh:
                    asyncio.run(drive(port, [get("/healthz")], 1))
                    time.sleep(1.0)  # idle: housekeeping has run once
                    weights[name].append(machine.memory(process.pid))
            finally:
                _stop(process)
    figures = []
    for name in configs:
        figures.append(Figure(f"start-up to the first answer, {name}", tuple(seconds[name]), "s", at_most=START_UNDER))
        figures.append(Figure(f"start-up CPU, {name}", tuple(cpu[name]), "s"))
    for name in configs:
        after = "after a webhook" if name == "one channel" else "nothing received yet"
        resident = tuple(rss for _, rss in weights[name])
        figures.append(Figure(f"idle memory (RSS), {name}, {after}", resident, "MB", at_most=MEMORY_UNDER))
        figures.append(Figure(f"idle memory (PSS), {name}, {after}", tuple(pss for pss, _ in weights[name]), "MB"))
    return figures

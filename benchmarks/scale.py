"""Commands and roles on records of 10,000 to 10,000,000 items: what grows by how much with ten times the items.

No ratio against others: nobody else has such a record. SQLite and PostgreSQL; BENCHMARK_SCALE names the sizes (default
10000,100000,1000000), and BENCHMARK_SCALE_URLS databases that were filled before, one for each size, instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import scale_record
from benchmarks.harness import RESULTS

SIZES = "10000,100000,1000000"
_CLI: dict[str, list[str]] = {
    "jobs list": ["jobs", "list"],
    "jobs list --state waiting": ["jobs", "list", "--state", "waiting"],
    "jobs list --reason": ["jobs", "list", "--reason", "cannot understand"],
    "jobs show, a tenth of all items": ["jobs", "show", "1"],
    "jobs show, a retrieve": ["jobs", "show", "2"],
    "status": ["status"],
    "explain, a tenth of all items": ["explain", "1"],
    "jobs items, a tenth of all items": ["jobs", "items", "1", "--csv"],
    "jobs items --state failed --limit 20": ["jobs", "items", "1", "--state", "failed", "--limit", "20"],
    "jobs report --by instance": ["jobs", "report", "2", "--by", "instance", "--csv"],
    "jobs report": ["jobs", "report", "2"],
    "archive list, a tenth of all items": ["archive", "list", "--csv"],
    "archive list --job": ["archive", "list", "--job", "2", "--csv"],
}
_STEPS = ("restart", "sweep", "claim", "submit", "hold", "cancel", "retry")
_PRUNE = {"jobs prune, a tenth of all jobs": ["jobs", "prune", "--older-than", "180d", "--yes"]}


@dataclass(frozen=True)
class Seen:
    """One command, from outside. `megabytes` is its peak resident set."""

    wall: float
    cpu: float
    megabytes: float
    sql: float
    statements: int
    longest: str


def run(_rounds: int) -> None:
    """One run of everything on each size; every figure is printed and kept."""
    sizes = [int(text) for text in os.environ.get("BENCHMARK_SCALE", SIZES).split(",")]
    given = [url for url in os.environ.get("BENCHMARK_SCALE_URLS", "").split(",") if url]
    if given:
        _measured(given[0].partition(":")[0], dict(zip(sizes, given, strict=True)))
        return
    from support.peers import PostgresCluster

    folder = Path(tempfile.mkdtemp(prefix="dicomferry-scale-"))
    try:
        _measured("sqlite", _filled({size: f"sqlite:///{folder / str(size)}.db" for size in sizes}))
        with PostgresCluster() as cluster:
            _measured("postgresql", _filled({size: cluster.create_database() for size in sizes}))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _filled(urls: dict[int, str]) -> dict[int, str]:
    for size, url in urls.items():
        began = time.perf_counter()
        scale_record.fill(url, size)
        print(f"{size:>10,} items written in {time.perf_counter() - began:.0f} s", flush=True)
    return urls


def _measured(name: str, urls: dict[int, str]) -> None:
    print(f"{name}: processor time of the process and time in SQL (ms), statements, peak MB", flush=True)
    found: dict[str, dict[int, Seen]] = {}
    wanted = os.environ.get("BENCHMARK_SCALE_ONLY")
    for step in (*_CLI, *_STEPS, *_PRUNE):
        if wanted and wanted not in step:
            continue
        argv = _CLI.get(step) or _PRUNE.get(step)
        for size, url in urls.items():
            arguments = ["cli", *argv] if argv else [step, url]
            found.setdefault(step, {})[size] = _once(arguments, url)
        print(_line(step, found[step]), flush=True)
    each = {size: scale_record.size_of(url) / size for size, url in urls.items()}
    print(f"{'bytes an item, all tables':<36}" + "".join(f"{value:>28,.0f}" for value in each.values()), flush=True)
    _save(name, found, each)


def _line(step: str, seen: dict[int, Seen]) -> str:
    cells = (
        f"{one.cpu * 1000:>10,.0f} {one.sql * 1000:>7,.0f} {one.statements:>5} {one.megabytes:>3.0f}"
        for one in seen.values()
    )
    return f"{step:<36}" + "".join(cells)


def _once(arguments: list[str], url: str) -> Seen:
    home = Path(tempfile.mkdtemp(prefix="dicomferry-scale-home-"))
    environment = os.environ | {"DICOMFERRY_HOME": str(home), "DICOMFERRY_DATABASE_URL": url}
    argv = [sys.executable, "-m", "benchmarks.scale_step", *arguments]
    try:
        began = time.perf_counter()
        process = subprocess.Popen(
            argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert process.stderr is not None
        with process.stderr:
            said = process.stderr.read().decode().strip().splitlines()
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}:\n" + "\n".join(said[-20:]))
    told: dict[str, Any] = json.loads(said[-1])
    return Seen(
        wall=told.get("wall", wall),
        cpu=used.ru_utime + used.ru_stime,
        megabytes=used.ru_maxrss / 1000,
        sql=told["sql"],
        statements=told["statements"],
        longest=f"{told['longest'] * 1000:,.0f} ms: {told['statement'][:1500]}",
    )


def _save(name: str, found: dict[str, dict[int, Seen]], each: dict[int, float]) -> None:
    RESULTS.mkdir(exist_ok=True)
    steps = {step: {str(size): vars(one) for size, one in seen.items()} for step, seen in found.items()}
    document = {"database": name, "bytes_an_item": {str(size): round(value) for size, value in each.items()}}
    document |= {"steps": steps}
    (RESULTS / f"scale-{name.partition('+')[0]}.json").write_text(json.dumps(document, indent=1) + "\n")

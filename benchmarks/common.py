"""What the benchmarks share: CPU seconds, memory, a results file, and a plain table."""

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def cpu_seconds(work: Callable[[], object], *, repeats: int = 3) -> float:
    """Return the least CPU time that the work took, in seconds over all threads."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def wall_seconds(work: Callable[[], object], *, repeats: int = 3) -> float:
    """Return the least wall time that the work took, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def anonymous_mb() -> float:
    """Return this process's memory that no file backs, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


def report(name: str, rows: dict[str, float | int | str]) -> None:
    """Print the rows and keep them in results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    machine = {"processor": platform.processor() or platform.machine()}
    text = json.dumps({"machine": machine, **rows}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n", "utf-8")
    width = max(map(len, rows))
    print(f"\n{name}")
    for label, value in rows.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"  {label:<{width}}  {shown}")

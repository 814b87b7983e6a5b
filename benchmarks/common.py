"""What the benchmarks share: photographs, CPU seconds, memory, a results file, a plain table."""

import json
import platform
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np

from vit4icd.images import read_image, resize, write_image

RESULTS = Path(__file__).parent / "results"
WIDTH, HEIGHT, QUALITY = 683, 512, 88


def photographs(folder: Path, n_pictures: int, *, n_originals: int | None = None) -> list[Path]:
    """Write different cuts of the packaged photographs as JPEGs of one size; return their paths.

    They are cut from the first so many of the photographs, by default from all.
    """
    folder.mkdir(exist_ok=True)
    cut_rng, paths = np.random.default_rng(0), list[Path]()
    originals = sorted(Path(str(files("vit4icd.demo") / "photographs")).glob("*.jpg"))
    images = [read_image(path) for path in originals[:n_originals]]
    for number in range(n_pictures):
        image = images[number % len(images)]
        share = cut_rng.uniform(0.6, 1.0, 2)
        top, left = (cut_rng.uniform(0, 1 - share) * image.shape[:2]).astype(int)
        height, width = (share * image.shape[:2]).astype(int)
        cut = np.ascontiguousarray(image[top : top + height, left : left + width])
        paths.append(folder / f"{number:04d}.jpg")
        write_image(paths[-1], resize(cut, WIDTH, HEIGHT), suffix=".jpg", quality=QUALITY)
    return paths


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
    return _status_mb("RssAnon")


def highest_mb() -> float:
    """Return the most memory that this process had at any time, in MB.

    Linux's getrusage would count what its parent had when it started this process.
    """
    return _status_mb("VmHWM")


def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
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

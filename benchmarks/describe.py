"""Pictures described per second, decode included, against the engine alone on the same pixels."""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import HEIGHT, WIDTH, cpu_seconds, photographs, report, wall_seconds
from vit4icd.describer import load_describer
from vit4icd.extract import describe
from vit4icd.images import read_image
from vit4icd.preprocessing import prepare

N_PICTURES, N_THREADS = 576, 2


def main() -> None:
    """Measure and print."""
    describer = load_describer(n_threads=N_THREADS)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        paths = photographs(here, N_PICTURES)
        preprocessing = describer.preprocessing
        pixels = np.stack(
            [
                prepare(read_image(path, at_least=preprocessing.at_least), preprocessing)
                for path in paths
            ]
        )

        def engine() -> None:
            for first in range(0, N_PICTURES, 16):
                describer.describe(pixels[first : first + 16])

        def whole() -> None:
            describe([here], here / "out.h5", describer)

        def decode() -> None:
            for path in paths:
                prepare(read_image(path, at_least=preprocessing.at_least), preprocessing)

        engine()
        engine_s, whole_s = wall_seconds(engine), wall_seconds(whole)
        engine_cpu_s, whole_cpu_s, decode_s = map(cpu_seconds, (engine, whole, decode))
    report(
        "describe",
        {
            "pictures": f"{N_PICTURES} JPEG of {WIDTH} x {HEIGHT}",
            "threads": N_THREADS,
            "engine alone: pictures/s": N_PICTURES / engine_s,
            "describe: pictures/s": N_PICTURES / whole_s,
            "decode and prepare: CPU ms a picture": 1000 * decode_s / N_PICTURES,
            "describe / engine": engine_s / whole_s,
            "describe / engine, by CPU time": engine_cpu_s / whole_cpu_s,
        },
    )


if __name__ == "__main__":
    main()

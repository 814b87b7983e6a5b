"""Edited copies per second of one core, decode included; floor: 300 at 224 px with three edits."""

import io

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.common import cpu_seconds, report
from vit4icd.edits import EDITS, apply_plan, edited_copy, official_config, robust_config
from vit4icd.images import read_image, resize

N_COPIES, SIZE = 300, 224


def main() -> None:
    """Measure and print."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    files = [_photo(rng) for _ in range(24)]
    webp = [_as_webp(file) for file in files]
    rows: dict[str, float | int | str] = {"copies": N_COPIES, "pixels": SIZE}
    decode = cpu_seconds(lambda: [read_image(files[row % 24]) for row in range(N_COPIES)])
    for label, config in (
        ("3 of the official 24", official_config()),
        ("robust_config", robust_config()),
    ):
        for kind, stored in (("jpeg", files), ("webp", webp)):

            def copies(config: object = config, stored: list[bytes] = stored) -> None:
                edit_rng = np.random.default_rng(1)
                for row in range(N_COPIES):
                    edited_copy(
                        read_image(stored[row % 24]),
                        edit_rng=edit_rng,
                        config=config,  # type: ignore[arg-type]
                        donors=lambda number: read_image(stored[number % 24]),
                        size=SIZE,
                    )

            seconds = cpu_seconds(copies)
            rows[f"{label}, {kind}: copies/s per core"] = N_COPIES / seconds
            if kind == "jpeg":
                rows[f"{label}, {kind}: share of decoding"] = decode / seconds
    pictures = [read_image(file) for file in files]
    for name in EDITS:
        rows[f"ms {name}"] = 1000 * _edit_seconds(name, pictures)
    report("edits", rows)


def _edit_seconds(name: str, pictures: list[np.ndarray]) -> float:
    def work() -> None:
        edit_rng = np.random.default_rng(2)
        for row in range(40):
            params = EDITS[name].draw(edit_rng, 1.0) | {"donors": [1, 2, 3]}
            apply_plan(
                pictures[row % 24], ((name, params),), donors=pictures.__getitem__, size=SIZE
            )

    return cpu_seconds(work) / 40


def _photo(rng: np.random.Generator) -> bytes:
    """Return a 342 x 256 JPEG with detail at every scale."""
    image = np.zeros((256, 342, 3), np.float32)
    for side in (4, 8, 16, 32, 64, 128):
        small = rng.integers(0, 255, (side, side, 3)).astype(np.uint8)
        image += resize(small, 342, 256).astype(np.float32) * (4 / side) ** 0.7
    image = np.clip((image - image.mean()) / image.std() * 55 + 128, 0, 255).astype(np.uint8)
    data: bytes = simplejpeg.encode_jpeg(image, quality=88)
    return data


def _as_webp(jpeg: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(read_image(jpeg)).save(buffer, "WEBP", quality=80)
    return buffer.getvalue()


if __name__ == "__main__":
    main()

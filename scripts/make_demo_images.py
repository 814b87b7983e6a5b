"""Make the demo's pictures from the photographs of the packages named below.

usage: python scripts/make_demo_images.py FOLDER

FOLDER holds the original files by the names below: those of the Debian packages
lomiri-wallpapers-16.04 and lomiri-wallpapers-20.04 (20.04.0-2), and those of the wheels of
scikit-image 0.26.0 (skimage/data) and scikit-learn 1.9.1 (sklearn/datasets/images).
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vit4icd.edits import EDITS, EditPlan, apply_plan
from vit4icd.images import read_image, resize, write_image

DEMO = Path(__file__).parents[1] / "src" / "vit4icd" / "demo"
LOMIRI = "Debian lomiri-wallpapers 20.04.0-2, debian/copyright"
SKIMAGE = "scikit-image 0.26.0, docstring of skimage.data"
SKLEARN = "scikit-learn 1.9.1, sklearn/datasets/images/README.txt"
SA4, SA3, BY4, BY2 = "CC-BY-SA-4.0", "CC-BY-SA-3.0", "CC-BY-4.0", "CC-BY-2.0"
PD = "public domain"

REFERENCES = (  # name, file, author, licence, source
    ("beams", "Bridge_by_Sander_Klootwijk.jpg", "Sander Klootwijk", SA4, LOMIRI),
    ("leaves", "Dragonfly_by_Bolly.jpg", "Bolly", SA4, LOMIRI),
    ("milky-way", "Infinite-Sea_by_Aury88.jpg", "Aury88", SA3, LOMIRI),
    ("nuthatch", "Kleiber_by_Lukas_Baubkus.jpg", "Lukas Baubkus", SA3, LOMIRI),
    ("fig", "Picture_0B_by_freespace.jpg", 'Trevor "Freespace"', BY4, LOMIRI),
    ("brushes", "Picture_1A_by_freespace.jpg", 'Trevor "Freespace"', BY4, LOMIRI),
    ("wine", "Wine_by_Jakkub_Mede.jpg", "Jakub Mede", BY4, LOMIRI),
    ("ridge", "aitzgorri_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", BY4, LOMIRI),
    ("lamp", "free_by_Peter_Nerlich.jpg", "Peter Nerlich", SA4, LOMIRI),
    ("dogs", "friends_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", BY4, LOMIRI),
    ("clock", "greentock_by_Peter_Nerlich.jpg", "Peter Nerlich", SA4, LOMIRI),
    ("brook", "life_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", BY4, LOMIRI),
    ("peaks", "picosdeeuropa_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", BY4, LOMIRI),
    ("dandelions", "seeding_by_Clements_Engelhardt.jpg", "Clemens Engelhardt", "CC0-1.0", LOMIRI),
    ("sunset", "sunset_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", BY4, LOMIRI),
    ("astronaut", "astronaut.png", "NASA", PD, SKIMAGE),
    ("cameraman", "camera.png", "Lav Varshney", "CC0-1.0", SKIMAGE),
    ("cat", "chelsea.png", "Stefan van der Walt", "CC0-1.0", SKIMAGE),
    ("coffee", "coffee.png", "Rachel Michetti", "CC0-1.0", SKIMAGE),
    ("rocket", "rocket.jpg", "SpaceX", PD, SKIMAGE),
    ("pagoda", "china.jpg", "danielbuechele", BY2, SKLEARN),
    ("dahlia", "flower.jpg", "vultilion", BY2, SKLEARN),
)
OTHERS = (  # never references: they distract, or other pictures are pasted onto them
    ("bricks", "brick.png", "cc0textures.com", "CC0-1.0", SKIMAGE),
    ("grass", "grass.png", "linolafett (DeviantArt)", "CC0-1.0", SKIMAGE),
    ("gravel", "gravel.png", "cc0textures.com", "CC0-1.0", SKIMAGE),
    ("galaxies", "hubble_deep_field.jpg", "NASA", PD, SKIMAGE),
    ("retina", "retina.jpg", "Mikael Häggström", "CC0-1.0", SKIMAGE),
    ("wall-clock", "clock_motion.png", "Stefan van der Walt", PD, SKIMAGE),
)
COPIES = (  # reference, edits in order, seed
    ("cat", ("crop",), 1),
    ("pagoda", ("flip_horizontally", "colour_jitter"), 2),
    ("coffee", ("rotate",), 3),
    ("astronaut", ("underlay",), 4),
    ("dogs", ("screenshot",), 5),
    ("fig", ("collage",), 6),
    ("brushes", ("text", "emoji"), 7),
    ("peaks", ("grayscale", "jpeg"), 8),
    ("dahlia", ("blur",), 9),
    ("rocket", ("perspective",), 10),
    ("brook", ("pad", "saturation"), 11),
    ("clock", ("meme",), 12),
    ("nuthatch", ("resized_crop", "brightness"), 13),
    ("lamp", ("pixelate",), 14),
    ("sunset", ("blurry_mask",), 15),
    ("cameraman", ("shuffle_pixels", "stripes"), 16),
)
DISTRACTORS = (
    ("bricks", ("perspective",), 17),
    ("grass", ("colour_jitter",), 18),
    ("gravel", ("text",), 19),
    ("galaxies", ("crop",), 20),
    ("retina", ("pad",), 21),
    ("wall-clock", ("screenshot",), 22),
)
LONG_SIDE, QUERY_SIDE = 640, 400


def main() -> None:
    """Write photographs, queries, truth, edits and licences."""
    folder = Path(sys.argv[1])
    pictures = {name: _shrunk(read_image(folder / file)) for name, file, *_ in REFERENCES + OTHERS}
    for name, *_ in REFERENCES:
        _write(DEMO / "photographs" / f"{name}.jpg", pictures[name])
    jobs = [*COPIES, *DISTRACTORS]
    order = np.random.default_rng(7).permutation(len(jobs))
    others = [pictures[name] for name, *_ in OTHERS]
    truth, edits = [("query_id", "reference_id")], [("query_id", "edits", "picture")]
    for number, job in enumerate(order, start=1):
        name, names, seed = jobs[job]
        query = f"q{number:02d}"
        plan = _plan(names, seed)
        copy = apply_plan(
            pictures[name],
            plan,
            donors=lambda index: others[index % len(others)],
            size=QUERY_SIDE,
        )
        _write(DEMO / "queries" / f"{query}.jpg", copy)
        truth.append((query, name if job < len(COPIES) else ""))
        edits.append((query, " + ".join(names).replace("_", " "), name))
    _write_csv(DEMO / "truth.csv", truth)
    _write_csv(DEMO / "edits.csv", edits)
    _write_licences()


def _plan(names: tuple[str, ...], seed: int) -> EditPlan:
    edit_rng = np.random.default_rng(seed)
    plan = []
    for name in names:
        params = EDITS[name].draw(edit_rng, 0.8)
        params["donors"] = [int(index) for index in edit_rng.integers(100, size=3)]
        plan.append((name, params))
    return tuple(plan)


def _shrunk(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    return resize(image, round(width * scale), round(height * scale))


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, image, suffix=".jpg", quality=84)


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _write_licences() -> None:
    lines = [
        "# Licences of the demo's pictures",
        "",
        "All photographs were scaled to 640 pixels at most and saved as JPEG. The queries are",
        "edited copies of them (see edits.csv), under the licences of the photographs they show,",
        "all of which allow this; a query that shows a CC-BY-SA photograph is under that licence.",
        "",
        "| picture | original file | author | licence | where it is stated | used as |",
        "|---|---|---|---|---|---|",
    ]
    for role, rows in (("reference", REFERENCES), ("distractor or backdrop", OTHERS)):
        lines += [
            f"| {name} | {file} | {author} | {licence} | {source} | {role} |"
            for name, file, author, licence, source in rows
        ]
    (DEMO / "LICENCES.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()

"""A model beside others on a development set; ``python -m benchmarks.devset FOLDER``.

FOLDER holds queries/, references/, background/, ground_truth.csv (query_id,reference_id) and, if
it is there, edits.jsonl whose "split" tells kinds of queries apart. The kind "unseen" is made here:
copies of the true pairs' references by the edits that are held out from all training, among the
set's own distractor queries. Peers are measured where they are installed: pHash (imagehash), PDQ
(pdqhash), SSCD (``--sscd FILE``, an ONNX file that takes uint8 pictures of 320 x 320).
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from vit4icd.describer import OnnxDescriber, load_describer
from vit4icd.edits import HELD_OUT_EDITS, TRAINING_EDITS, EditConfig, edited_copy
from vit4icd.evaluate import evaluate
from vit4icd.extract import describe
from vit4icd.images import read_image, write_image
from vit4icd.scores import Normalised, ScoreNormalisation, normalise
from vit4icd.search import best_pairs
from vit4icd.storage import read_descriptors, read_truth
from vit4icd.types import DescriptorSet, Pairs, Truth

ROLES = ("queries", "references", "background", "unseen")
STRENGTHS = (0.33, 0.67, 1.0)
N_THREADS = 2
Sets = dict[str, DescriptorSet]
DescribeFolder = Callable[[Path], DescriptorSet]


def main() -> None:
    """Print one table: each describer with and without score normalisation, kind by kind."""
    asked = _asked()
    describer = load_describer(asked.model, n_threads=N_THREADS)
    with tempfile.TemporaryDirectory() as temporary:
        folders = {role: asked.folder / role for role in ROLES}
        folders["unseen"] = Path(temporary) / "unseen"
        truth = read_truth(asked.folder / "ground_truth.csv")
        unseen = _make_unseen(folders["references"], truth, folders["unseen"])
        kinds = _kinds(asked.folder / "edits.jsonl")
        _print_head([*kinds, "unseen"])
        for name, describe_folder in _describers(describer, Path(temporary), asked.sscd):
            sets = {role: describe_folder(folder) for role, folder in folders.items()}
            _print_rows(name, sets, truth, unseen, kinds)
            if name == "vit4icd" and describer.background is not None:
                _print_rows(
                    name, sets | {"background": describer.background}, truth, unseen, kinds,
                    suffix=", own background",
                )  # fmt: skip
    if asked.single_edits:
        print_single_edits(describer, asked.folder / "references", n_pictures=asked.single_edits)


def print_single_edits(describer: OnnxDescriber, folder: Path, *, n_pictures: int) -> None:
    """Print the recall at rank 1 of copies with one edit alone, by edit and strength."""
    paths = sorted(folder.glob("*.jpg"))
    references = describer.describe_images([read_image(path) for path in paths])
    images = [read_image(path) for path in paths[:n_pictures]]
    donors = [read_image(path) for path in paths[-64:]]
    print(f"\nrecall at rank 1 of {n_pictures} copies with one edit, among {len(paths)} references")
    print(f"{'edit':<20}" + "".join(f"{strength:>7.0%}" for strength in STRENGTHS))
    for name in (*TRAINING_EDITS, *HELD_OUT_EDITS):
        cells = []
        for strength in STRENGTHS:
            config = EditConfig(names=(name,), count_shares=(1.0,), strength=strength)
            copies = [
                edited_copy(
                    image,
                    edit_rng=np.random.default_rng((7, row)),
                    config=config,
                    donors=lambda number: donors[number % len(donors)],
                    size=describer.preprocessing.image_size,
                )
                for row, image in enumerate(images)
            ]
            best = (describer.describe_images(copies) @ references.T).argmax(axis=1)
            cells.append(float((best == np.arange(len(copies))).mean()))
        mark = " *" if name in HELD_OUT_EDITS else ""
        print(f"{name + mark:<20}" + "".join(f"{cell:>7.2f}" for cell in cells), flush=True)
    print("* held out from training")


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, help="model folder; the packaged one by default")
    parser.add_argument("--sscd", type=Path, help="SSCD as an ONNX file, to measure beside")
    parser.add_argument(
        "--single-edits", type=int, default=0, metavar="N", help="copies per edit and strength"
    )
    return parser.parse_args()


def _print_head(kinds: Sequence[str]) -> None:
    print(
        f"{'describer':<24}{'SN':>4}  µAP    R@P90  R@1    " + "  ".join(f"{k:<6}" for k in kinds)
    )


def _print_rows(
    name: str, sets: Sets, truth: Truth, unseen: Truth, kinds: dict[str, set[str]],
    *, suffix: str = "",
) -> None:  # fmt: skip
    for normalised in (True,) if suffix else (False, True):
        pairs = _match(sets["queries"], sets, normalised=normalised)
        cells = [*_figures(pairs, truth)]
        cells += [_figures(*_only(pairs, truth, queries))[0] for queries in kinds.values()]
        distractors = _only(pairs, truth, set(pairs.queries) - set(truth.queries))[0]
        copies = _match(sets["unseen"], sets, normalised=normalised)
        cells.append(_figures(_joined(copies, distractors), unseen)[0])
        text = "  ".join(f"{cell:.3f}" for cell in cells)
        print(f"{name + suffix:<24}{'yes' if normalised else 'no':>4}  {text}", flush=True)


def _describers(
    describer: OnnxDescriber, temporary: Path, sscd: Path | None
) -> list[tuple[str, DescribeFolder]]:
    def with_model(folder: Path) -> DescriptorSet:
        out = temporary / f"{folder.name}.h5"
        describe([folder], out, describer)
        mapped = read_descriptors(out)
        return DescriptorSet(
            ids=mapped.ids, vectors=np.array(mapped.vectors), fingerprint=mapped.fingerprint
        )

    rows: list[tuple[str, DescribeFolder]] = [("vit4icd", with_model)]
    rows += [(name, _by_picture(signs)) for name, signs in _hashes().items()]
    if sscd is not None:
        rows.append(("SSCD", _by_picture(_sscd(sscd))))
    return rows


def _hashes() -> dict[str, Callable[[Image.Image], np.ndarray]]:
    """Return hashes as functions to +-1 signs, so that the inner product counts equal bits."""
    found: dict[str, Callable[[Image.Image], np.ndarray]] = {}
    try:
        import imagehash

        found["pHash, 64 bit"] = lambda image: imagehash.phash(image).hash.ravel() * 2.0 - 1
    except ImportError:
        print("imagehash is not installed: no row for pHash", file=sys.stderr)
    try:
        import pdqhash

        found["PDQ, 256 bit"] = lambda image: pdqhash.compute(np.asarray(image))[0] * 2.0 - 1
    except ImportError:
        print("pdqhash is not installed: no row for PDQ", file=sys.stderr)
    return found


def _sscd(path: Path) -> Callable[[Image.Image], np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = N_THREADS
    session = onnxruntime.InferenceSession(path, options)
    name = session.get_inputs()[0].name

    def describe_picture(image: Image.Image) -> np.ndarray:
        pixels = np.asarray(image.resize((320, 320), Image.Resampling.BICUBIC))[None]
        return np.asarray(session.run(None, {name: pixels})[0][0])

    return describe_picture


def _by_picture(vector: Callable[[Image.Image], np.ndarray]) -> DescribeFolder:
    def describe_folder(folder: Path) -> DescriptorSet:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".jpg")
        rows = []
        for path in paths:
            with Image.open(path) as image:
                rows.append(vector(image.convert("RGB")))
        vectors = np.stack(rows).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return DescriptorSet(ids=[path.stem for path in paths], vectors=vectors)

    return describe_folder


def _make_unseen(references: Path, truth: Truth, folder: Path) -> Truth:
    """Write a copy of each true pair's reference by one or two held-out edits; say whose it is."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config = EditConfig(names=HELD_OUT_EDITS, count_shares=(0.5, 0.5), weakest=0.5)
    for row, reference in enumerate(truth.references):
        image = read_image(references / f"{reference}.jpg")
        copy = edited_copy(
            image,
            edit_rng=np.random.default_rng((11, row)),
            config=config,
            donors=lambda _number, image=image: image,  # type: ignore[misc]
            size=384,
        )
        write_image(folder / f"U{row:05d}.jpg", copy, suffix=".jpg", quality=90)
    return Truth(queries=[f"U{row:05d}" for row in range(len(truth))], references=truth.references)


def _match(queries: DescriptorSet, sets: Sets, *, normalised: bool) -> Pairs:
    prepared = Normalised.unchanged(queries)
    if normalised:
        config = ScoreNormalisation(factor=1.0, neighbours=10)
        prepared = normalise(queries, sets["background"], config=config)
    return best_pairs(
        prepared.queries, sets["references"], bias=prepared.bias, max_pairs=10_000_000
    )


def _figures(pairs: Pairs, truth: Truth) -> tuple[float, float, float]:
    report = evaluate(
        pairs,
        truth,
        max_pairs=10_000_000,
        n_resamples=0,
        bootstrap_rng=np.random.default_rng(0),
    )
    return report.average_precision, report.recall_at_p90 or 0.0, report.recall_at_rank_1


def _only(pairs: Pairs, truth: Truth, queries: set[str]) -> tuple[Pairs, Truth]:
    rows = [row for row, query in enumerate(pairs.queries) if query in queries]
    known = [row for row, query in enumerate(truth.queries) if query in queries]
    return pairs.only(rows), truth.only(known)


def _joined(one: Pairs, other: Pairs) -> Pairs:
    return Pairs(
        queries=[*one.queries, *other.queries],
        references=[*one.references, *other.references],
        scores=np.concatenate([one.scores, other.scores]),
    )


def _kinds(path: Path) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            fields = json.loads(line)
            kinds.setdefault(fields["split"], set()).add(fields["query"])
    return dict(sorted(kinds.items()))


if __name__ == "__main__":
    main()

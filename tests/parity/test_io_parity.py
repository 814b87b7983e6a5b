"""Names as the original's files hold them and its reader gives them back."""

import json
from pathlib import Path

import h5py
import numpy as np

from tests.conftest import DATA
from vit4icd.storage import official_id, write_descriptors
from vit4icd.types import DescriptorSet

EXPECTED = json.loads((DATA / "oracle" / "io" / "hdf5_names.json").read_text())


def test_gives_names_the_ids_of_the_original() -> None:
    names = [name.encode("ascii", "ignore").decode() for name in EXPECTED["written_names"]]
    assert [official_id(name) for name in names] == EXPECTED["read_ids"][: len(names)]


def test_writes_the_layout_of_the_original(tmp_path: Path) -> None:
    names = EXPECTED["written_names"]
    vectors = np.arange(2 * len(names), dtype=np.float32).reshape(-1, 2)
    write_descriptors(tmp_path / "x.h5", DescriptorSet(ids=names, vectors=vectors))
    with h5py.File(tmp_path / "x.h5") as file:
        assert set(EXPECTED["datasets"]) <= set(file)
        assert str(file["vectors"].dtype) == EXPECTED["vectors_dtype_in_file"]
        assert file["vectors"].shape == tuple(EXPECTED["vectors_shape"])
        assert file["image_names"].dtype.str == EXPECTED["image_names_dtype_in_file"]
        assert [name.decode() for name in file["image_names"]] == EXPECTED["image_names_raw"]

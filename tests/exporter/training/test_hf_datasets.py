"""Pictures and captions of a data set of the datasets library."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from engines.errors import MissingDependency, RecipeError
from exporter.training import captioned_images, hf_datasets
from exporter.training.options import Dataset

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def datasets():
    """The library, with pandas and all: a second of a CPU that only these tests shall take."""
    import datasets

    return datasets


@pytest.fixture
def saved(tmp_path, datasets):
    pixels = [np.full((8, 8, 3), shade, np.uint8) for shade in (10, 20)]
    columns = {"image": pixels, "text": ["one", "two"], "several": [["uno", "ein"], ["dos"]], "number": [1, 2]}
    features = datasets.Features(
        image=datasets.Image(),
        text=datasets.Value("string"),
        several=datasets.List(datasets.Value("string")),
        number=datasets.Value("int64"),
    )
    whole = datasets.DatasetDict(train=datasets.Dataset.from_dict(columns, features=features))
    whole.save_to_disk(str(tmp_path / "saved"))
    return tmp_path


def test_a_data_set_on_disk(saved):
    found = hf_datasets.pictures(Dataset(dataset="saved"), saved, "x")
    assert [picture.caption for picture in found] == ["one", "two"]
    shades = [np.asarray(Image.open(io.BytesIO(picture.read()))).mean() for picture in found]
    assert shades == [10, 20]
    assert captioned_images.digest(found) == captioned_images.digest(hf_datasets.pictures(Dataset(dataset="saved"), saved, "x"))
    several = hf_datasets.pictures(Dataset(dataset="saved", caption="several"), saved, "x")
    assert [picture.caption for picture in several] == ["uno", "dos"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"caption": "txt"}, "has no column 'txt'; did you mean 'text'"),
        ({"image": "number"}, "column 'number' of saved holds no pictures"),
        ({"caption": "number"}, "row 0 of saved has the caption 1, which is no text"),
        ({"split": "tran"}, "no split 'tran'; did you mean 'train'"),
    ],
)
def test_what_a_data_set_lacks_is_said(saved, changes, told):
    with pytest.raises(RecipeError, match=told):
        hf_datasets.pictures(Dataset(dataset="saved", **changes), saved, "distill.data")


def test_a_folder_that_is_no_data_set(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(RecipeError, match=r"distill.data: none cannot be loaded"):
        hf_datasets.pictures(Dataset(dataset="none"), tmp_path, "distill.data")


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match=r"pip install 't2iexport\[datasets\]'"):
        hf_datasets.pictures(Dataset(dataset="any"), tmp_path, "x")


def test_a_picture_is_read_where_it_lies(tmp_path, datasets):
    """Where a data set holds a path instead of the bytes, and when it is asked for."""
    Image.new("RGB", (4, 4), (9, 0, 0)).save(tmp_path / "a.png")
    made = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.png")], "text": ["one"]}).cast_column(
        "image", datasets.Image()
    )
    made.save_to_disk(str(tmp_path / "saved"))
    (found,) = hf_datasets.pictures(Dataset(dataset="saved"), tmp_path, "x")
    assert found.name == "saved, train 0"
    assert np.asarray(Image.open(io.BytesIO(found.read())))[0, 0].tolist() == [9, 0, 0]

"""A reward of a user's own file: its folder's engine gives what its network gives, and a file that is none is told as that."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from engines.errors import RecipeError, UnsupportedError
from engines.reward import Reward
from exporter import reward
from exporter.reward import folder
from exporter.reward.own import OwnReward
from tests.engines import small

pytest.importorskip("onnxruntime")
FILE = '''
import torch
from engines.inputs import Input, Preprocessing
from engines.manifest import Tokenizer

__all__ = ["Bright"]

TOKENIZER = """{tokenizer}"""


class Bright:
    image = Input(kind="image", shape=("batch", 4, 4, 3), preprocessing=Preprocessing(resize="crop"))

    def tokenizer(self):
        return Tokenizer(file="tokenizer.json", length={length}, feeds="prompt_ids", mask="prompt_mask"), TOKENIZER

    def network(self):
        class Network(torch.nn.Module):
            def forward(self, image, ids, mask):
                return image.mean((1, 2, 3)) * (ids * mask).sum(1).float()

        return Network()
'''


@pytest.fixture
def root(tmp_path):
    spelled = small.tokenizer_json().replace("\\", "\\\\")
    (tmp_path / "bright.py").write_text(
        FILE.replace("{tokenizer}", spelled).replace("{length}", str(small.LENGTH)), encoding="utf-8"
    )
    return tmp_path


def test_its_folder_gives_what_its_network_gives(root, monkeypatch):
    monkeypatch.chdir(root)
    about, unit = folder.make("bright.py", root / "judges" / "bright", ["onnxruntime"], processor=None, revision=None)
    assert (unit, about.source["source"], about.tokenizer.mask) == ("of its own numbers", "bright.py", "prompt_mask")
    images = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 51, 255)])
    texts = ["a", "a red square", "sea sea sea"]
    source = reward.source_of(about, root / "judges" / "bright")
    wanted = np.array([0, 0.2, 1]) * [7, 19, 36]
    assert source.scores(images, texts) == pytest.approx(wanted, abs=1e-4)
    with Reward.open(root / "judges" / "bright") as judge:
        assert judge.scores([Image.fromarray(each) for each in images], texts) == pytest.approx(wanted, abs=1e-3)
    (root / "bright.py").write_text((root / "bright.py").read_text() + "\n# changed\n")
    with pytest.raises(UnsupportedError, match=r"bright\.py holds other networks than those"):
        reward.source_of(about, root / "judges" / "bright")


def test_its_digest_is_of_the_file_and_its_tokenizer(root):
    found = reward.find("bright.py", None, None, root)
    assert isinstance(found, OwnReward)
    assert found.digest == hashlib.sha256((root / "bright.py").read_bytes() + found.tokenizer()[1].encode()).hexdigest()
    assert (found.limit, found.device) == (0.01, "cpu")


@pytest.mark.parametrize(
    ("content", "kind", "told"),
    [
        (None, RecipeError, r"mine\.py is not a file; a reward's file counts from"),
        ("a = 1", UnsupportedError, r"must state __all__ with one name, that of a reward"),
        (
            "__all__ = ['A']\nclass A:\n    image = None",
            UnsupportedError,
            r"its class lacks tokenizer, network, which a reward has",
        ),
    ],
)
def test_a_file_that_is_none(tmp_path, content, kind, told):
    if content:
        (tmp_path / "mine.py").write_text(content)
    with pytest.raises(kind, match=told):
        reward.find("mine.py", None, None, tmp_path)


def test_it_takes_no_words_of_the_hub(root):
    with pytest.raises(RecipeError, match=r"a reward of one's own takes no processor and no revision"):
        reward.find("bright.py", None, "main", root)

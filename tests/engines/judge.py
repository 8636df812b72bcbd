"""A reward of a few kilobytes: how bright a picture is, times the mean of its prompt's ids."""

import onnx
from onnx import parser

from engines.bundle import measure
from engines.inputs import Input, Preprocessing
from engines.manifest import EngineFiles, Tokenizer
from engines.reward import IDS, IMAGE, MANIFEST, REWARD, RewardManifest
from engines.signature import Port, Range, Signature
from tests.engines import small

SIDE = 4
GRAPH = f"""
<ir_version: 10, opset_import: ["" : 20]>
reward (float[batch,{SIDE},{SIDE},3] image, int64[batch,{small.LENGTH}] prompt_ids) => (float[batch] reward) {{
  sides = Constant<value = int64[3] {{1, 2, 3}}>()
  bright = ReduceMean<keepdims = 0>(image, sides)
  numbers = Cast<to = 1>(prompt_ids)
  one = Constant<value = int64[1] {{1}}>()
  mean = ReduceMean<keepdims = 0>(numbers, one)
  reward = Mul(bright, mean)
}}
"""


def make(folder, **changes):
    """Write the reward into `folder`; what its manifest says."""
    (folder / "onnx").mkdir(parents=True)
    onnx.save(parser.parse_model(GRAPH), folder / "onnx" / "reward.onnx")
    (folder / "tokenizer.json").write_text(small.tokenizer_json(), encoding="utf-8")
    image = Input(kind="image", shape=("batch", SIDE, SIDE, 3), preprocessing=Preprocessing(resize="crop"))
    ids = Port(name=IDS, dtype="int64", shape=("batch", small.LENGTH))
    content = {
        "name": "bright",
        "source": {"source": "nowhere"},
        "image": image,
        "tokenizer": Tokenizer(file="tokenizer.json", length=small.LENGTH, feeds=IDS),
        "signature": Signature(
            inputs=(image.port(IMAGE), ids),
            outputs=(Port(name=REWARD, shape=("batch",)),),
            dims={"batch": Range(min=1, typical=1, max=2)},
        ),
        "engines": {"onnxruntime": EngineFiles(options={}, opset=20, files=("onnx/reward.onnx",), version="1")},
        "off": 0.0,
        "files": {name: measure(folder / name) for name in ("onnx/reward.onnx", "tokenizer.json")},
    }
    about = RewardManifest(**content | changes)
    (folder / MANIFEST).write_text(about.model_dump_json(), encoding="utf-8")
    return about

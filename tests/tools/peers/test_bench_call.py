import click
import numpy as np
import pytest
from click.testing import CliRunner

from engines.signature import Port, Range, Signature
from tests.engines import small
from tools.peers import bench_call


def test_what_both_are_given():
    batch = Range(min=1, typical=2, max=4)
    ports = (Port(name="latent", shape=("batch", 4, 8, 8)), Port(name="ids", dtype="int64", shape=("batch", 7)))
    signature = Signature(inputs=ports, outputs=(Port(name="out", shape=("batch", 4)),), dims={"batch": batch})
    given = bench_call.inputs(signature)
    assert {name: (array.shape, array.dtype) for name, array in given.items()} == {
        "latent": ((2, 4, 8, 8), np.float32), "ids": ((2, 7), np.int64),
    }  # fmt: skip
    words = bench_call.command("unet.xml", given, "bf16", 12.0)
    assert words[words.index("-shape") + 1] == "latent[2,4,8,8],ids[2,7]"
    assert words[words.index("-infer_precision") + 1] == "bf16"


def test_the_median_is_read_or_its_words_are_told():
    assert bench_call.told("[ INFO ] Latency:\n[ INFO ]    Median:        261.43 ms\n") == 261.43
    with pytest.raises(click.ClickException, match=r"no median:\n.*not found"):
        bench_call.told("[ ERROR ] unet.xml not found")


def test_a_bundle_without_such_an_engine(tmp_path):
    small.make(tmp_path / "bundle")
    done = CliRunner().invoke(bench_call.main, [str(tmp_path / "bundle")])
    assert done.exit_code
    assert "unet has no engine of openvino" in done.output

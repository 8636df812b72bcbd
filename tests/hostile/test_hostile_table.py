"""Tables made by an enemy: at worst wrong, and then a BundleError or an UnsupportedError says so."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import BundleError, UnsupportedError
from engines.samplers.table import Table
from tests.engines import small

NUMBER = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.none(), st.text(max_size=3))
OP = st.one_of(
    st.fixed_dictionaries({"op": st.just("draw")}),
    st.fixed_dictionaries({"op": st.just("eval"), "t": NUMBER, "row": st.lists(NUMBER, max_size=3)}),
    st.fixed_dictionaries({"op": st.sampled_from(["emit", "exec"]), "row": st.lists(NUMBER, max_size=3)}),
    st.integers(),
)


def play_if_it_loads(path):
    """Whether the file is a table; whatever it is, no other error may come of it."""
    try:
        table = Table.load(path)
        played = table.play(lambda latent, _: np.tanh(latent), lambda: np.ones((1, 1, 2, 2), np.float32))
    except (BundleError, UnsupportedError):
        return False
    assert played.shape == (1, 1, 2, 2)
    return True


@given(ops=st.lists(OP, max_size=5), wrapped=st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_ops(tmp_path_factory, ops, wrapped):
    path = tmp_path_factory.getbasetemp() / "ops.json"
    if wrapped:
        ops = [{"op": "draw"}, *ops, {"op": "emit", "row": [1.0]}]
    content = {**json.loads(small.table().model_dump_json()), "ops": ops}
    path.write_text(json.dumps(content))
    play_if_it_loads(path)


def test_every_byte_flipped(tmp_path):
    path = tmp_path / "t.json"
    small.table(2).dump(path)
    data = bytearray(path.read_bytes())
    loaded = 0
    for index in range(len(data)):
        for flip in (0x01, 0xFF):
            data[index] ^= flip
            path.write_bytes(data)
            loaded += play_if_it_loads(path)
            data[index] ^= flip
    assert loaded  # a changed coefficient is still a table: the manifest's digest is what finds it

"""Files as the safetensors library writes them are read to the bit, and damaged ones are refused."""

import json

import numpy as np
import pytest

from engines.errors import UnsupportedError
from engines.lora import tensors

torch = pytest.importorskip("torch", reason="it makes the files of every type, as trainers do")

from safetensors.torch import save_file  # noqa: E402 - only where torch is

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_is_read_as_the_library_reads_it(tmp_path, dtype):
    wanted = (torch.randn(3, 5, generator=torch.Generator().manual_seed(1)) * 8).to(dtype)
    save_file({"a": wanted, "b": torch.tensor(2.0).to(dtype)}, tmp_path / "x.safetensors", {"who": "me"})
    found = tensors.opened(tmp_path / "x.safetensors")
    assert dict(found.shapes) == {"a": (3, 5), "b": ()}
    assert found.metadata == {"who": "me"}
    assert np.array_equal(found["a"], wanted.float().numpy())
    assert found["a"].dtype == np.float32


def test_every_number_of_eight_bits(tmp_path):
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        wanted = torch.arange(256, dtype=torch.uint8).view(dtype)
        save_file({"a": wanted}, tmp_path / "x.safetensors")
        np.testing.assert_array_equal(tensors.opened(tmp_path / "x.safetensors")["a"], wanted.float().numpy())


def file_of(tmp_path, header, data=b"\0" * 8, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.mark.parametrize(
    "header",
    [
        b"not json", b"[]", b'{"a": 1}', entry(shape=(3,)), entry(offsets=(0, 80)), entry(offsets=(8, 0)), entry(shape=(-2,)),
        entry(offsets=(-8, 0)), entry(shape=("2",)), b'{"a": {}, "a": {}}', {"__metadata__": 3, **entry()},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_header_is_refused(tmp_path, header):
    with pytest.raises(UnsupportedError, match="not a whole safetensors file"):
        tensors.opened(file_of(tmp_path, header))


def test_a_short_file_a_missing_one_and_an_unknown_type_are_refused(tmp_path):
    for length in (2**63, 10_000):
        with pytest.raises(UnsupportedError, match="not a whole"):
            tensors.opened(file_of(tmp_path, entry(), length=length))
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(UnsupportedError, match="not a whole"):
        tensors.opened(tmp_path / "empty")
    with pytest.raises(UnsupportedError, match="cannot be read"):
        tensors.opened(tmp_path / "nothing")
    with pytest.raises(UnsupportedError, match="type F6_E2M3"):
        tensors.opened(file_of(tmp_path, entry(dtype="F6_E2M3")))

"""The repository on disk, by Triton's own schema; tests/engines/triton/test_model.py plays it."""

import onnxruntime
import pytest

from engines.bundle import Bundle
from engines.errors import UnsupportedError
from engines.triton import repository
from tests.engines import small
from tests.engines.test_real_engines import graphs
from tests.engines.triton.server import Server


@pytest.fixture
def bundle(tmp_path):
    return small.make(tmp_path / "bundle", graphs=graphs())


def test_every_model_has_a_config_of_tritons_schema(bundle, tmp_path, monkeypatch):
    names = repository.write(bundle.folder, tmp_path / "repository")
    assert names == ["small", "small.text_encoder", "small.unet", "small.vae_decoder"]
    server = Server(tmp_path / "repository", monkeypatch)
    assert sorted(server.configs) == names
    for name, config in server.configs.items():
        assert config.name == name
        assert (tmp_path / "repository" / name / "1").is_dir()
    unet = server.configs["small.unet"]
    assert (unet.backend, unet.max_batch_size, unet.default_model_filename) == ("onnxruntime", 2, "unet.onnx")
    assert unet.HasField("dynamic_batching")
    assert unet.dynamic_batching.max_queue_delay_microseconds == 2000
    dims = {port.name: (list(port.dims), port.HasField("reshape")) for port in unet.input}
    assert dims["latent"] == ([4, -1, -1], False)
    assert dims["timestep"] == dims["guidance_scale"] == ([1], True)
    whole = server.configs["small"]
    assert (whole.backend, whole.max_batch_size) == ("python", 0)
    assert [port.name for port in whole.input if not port.optional] == ["prompt"]
    assert whole.instance_group[0].count == 4


def test_graphs_are_the_bundles_and_their_ports_are_the_configs(bundle, tmp_path, monkeypatch):
    repository.write(bundle.folder, tmp_path / "repository")
    server = Server(tmp_path / "repository", monkeypatch)
    for part in ("text_encoder", "unet", "vae_decoder"):
        config, place = server.configs[f"small.{part}"], tmp_path / "repository" / f"small.{part}" / "1"
        file = place / config.default_model_filename
        assert file.read_bytes() == (bundle.folder / f"onnx/20/{part}.onnx").read_bytes()
        session = onnxruntime.InferenceSession(file)
        assert [port.name for port in session.get_inputs()] == [port.name for port in config.input]
        assert [port.name for port in session.get_outputs()] == [port.name for port in config.output]


def test_the_pipeline_has_what_it_reads_of_the_bundle_and_no_network(bundle, tmp_path):
    repository.write(bundle.folder, tmp_path / "repository")
    own = Bundle.open(tmp_path / "repository/small/1/bundle")
    assert own.manifest == bundle.manifest
    names = sorted(path.relative_to(own.folder).as_posix() for path in own.folder.rglob("*") if path.is_file())
    tables = ["samplers/2.json", "samplers/4.json", "samplers/process.json"]
    assert names == ["manifest.json", *tables, "tokenizers/tokenizer.json"]
    for name in names[1:]:
        own.path(name)


def test_a_fused_bundle_is_one_network(tmp_path, monkeypatch):
    bundle = small.make(tmp_path / "fused", **small.fused())
    assert repository.write(bundle.folder, tmp_path / "repository") == ["small", "small.pipeline_2"]
    assert Server(tmp_path / "repository", monkeypatch).configs["small.pipeline_2"].max_batch_size == 2


def test_each_gpu_is_told_its_own_engine(tmp_path, monkeypatch):
    parts = dict(small.draft().parts)
    files = tuple(f"engines/tensorrt/unet.sm{number}.engine" for number in ("120", "89"))
    told = {"files": files, "options": {"compute_capabilities": ["8.9", "12.0"]}}
    engine = parts["unet"].engines["onnxruntime"].model_copy(update=told)
    parts["unet"] = parts["unet"].model_copy(update={"engines": {"tensorrt": engine}})
    (tmp_path / "bundle/engines/tensorrt").mkdir(parents=True)
    for file in files:
        (tmp_path / "bundle" / file).write_bytes(b"engine")
    repository.write(small.make(tmp_path / "bundle", parts=parts).folder, tmp_path / "repository", "tensorrt")
    config = Server(tmp_path / "repository", monkeypatch).configs["small.unet"]
    assert dict(config.cc_model_filenames) == {"8.9": "unet.sm89.engine", "12.0": "unet.sm120.engine"}
    assert (tmp_path / "repository/small.unet/1/unet.sm89.engine").is_file()


def test_engines_of_tensorrt_are_taken_where_they_are(tmp_path, monkeypatch):
    parts = dict(small.draft().parts)
    engine = parts["unet"].engines["onnxruntime"].model_copy(update={"files": ("engines/tensorrt/unet.plan",), "version": "11.4"})
    parts["unet"] = parts["unet"].model_copy(update={"engines": {**parts["unet"].engines, "tensorrt": engine}})
    (tmp_path / "bundle/engines/tensorrt").mkdir(parents=True)
    (tmp_path / "bundle/engines/tensorrt/unet.plan").write_bytes(b"plan")
    bundle = small.make(tmp_path / "bundle", parts=parts)
    repository.write(bundle.folder, tmp_path / "repository", "tensorrt")
    configs = Server(tmp_path / "repository", monkeypatch).configs
    assert (configs["small.unet"].backend, configs["small.unet"].default_model_filename) == ("tensorrt", "unet.plan")
    assert configs["small.vae_decoder"].backend == "onnxruntime"


def test_what_triton_cannot_serve_is_refused_and_nothing_is_left(bundle, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UnsupportedError, match="is there and not empty"):
        repository.write(bundle.folder, tmp_path / "mine")
    parts = {name: part.model_copy(update={"engines": {}}) for name, part in small.draft().parts.items()}
    engine = small.draft().parts["unet"].engines["onnxruntime"]
    parts["unet"] = parts["unet"].model_copy(update={"engines": {"openvino": engine}})
    other = small.make(tmp_path / "other", parts=parts)
    with pytest.raises(UnsupportedError, match="and Triton runs those of onnxruntime and tensorrt"):
        repository.write(other.folder, tmp_path / "repository")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "mine", "other"]

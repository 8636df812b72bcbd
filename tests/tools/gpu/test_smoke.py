import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import psutil
import pytest
import torch
from click.testing import CliRunner

from engines import plugins
from engines.errors import UnsupportedError
from tools.gpu import graphs, runners, smoke, table
from tools.gpu.record import Gate, Record, wake


@pytest.fixture
def micro(tmp_path):
    from tests.exporter import models

    return models.save_sdxl(tmp_path / "micro")


@pytest.mark.parametrize("kind", ["onnxruntime", "attend"])
def test_a_graph_without_weights_computes_what_torch_computes_with_them(kind, micro, tmp_path, monkeypatch):
    # So small that nearly every weight is made up where it lies, plain and transposed.
    monkeypatch.setattr(graphs, "SMALL", 128)
    monkeypatch.setattr(graphs, "TINY", 4)
    folder = tmp_path / "graphs"
    path = graphs.make(str(micro), "guided", folder, size=64, batch=1, precision="fp32")
    assert not (folder / "unet.data").exists()
    told = graphs.facts(folder, "guided")
    assert {weight["turned"] for weight in told["weights"]} == {True, False}
    network = graphs.network(str(micro), "guided", folder, 64, 2, "cpu")
    inputs = runners.feed(told["signature"])
    right = runners.host(runners.Torch(network, inputs, 4).call())
    if kind == "attend":
        path = graphs.rewrite(path, ("attend",), "other")
    with plugins.load("backends", "onnxruntime")().open([path], told["signature"]) as engine:
        got = engine(inputs)["model_output"]
    assert runners.snr(got, right) > 90
    # The same numbers as `model.weights: random` gives.
    from exporter.models.resolve import resolve

    made = graphs.recipe(str(micro), "guided", 64, 1)
    for name, value in resolve(made.model, made.root).module("unet").state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=0, atol=0)


def test_a_large_tensor_that_is_no_weight_is_refused(micro, tmp_path, monkeypatch):
    exported = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    tensor = ir.tensor(np.linspace(1, 2, 300_000, dtype=np.float32), name="odd")
    exported.graph.register_initializer(ir.Value(name="odd", const_value=tensor))
    monkeypatch.setattr(graphs, "export", lambda *_: SimpleNamespace(model=exported))
    with pytest.raises(UnsupportedError, match="odd, of 300000 values, is no weight of the network"):
        graphs.make(str(micro), "decoder", tmp_path, size=64, batch=1, precision="fp32")


@pytest.mark.long
def test_one_model_and_the_distillation_from_end_to_end(tmp_path):
    from tests.exporter import models
    from tools.gpu import training
    from tools.gpu.model import Measurement, Settings

    source = str(models.save_sdxl(tmp_path / "micro", network=models.unet_xl(layers_per_block=2)))
    out, work = tmp_path / "out", tmp_path / "work"
    settings = Settings(
        model=source, name="micro", graphs=tmp_path / "graphs", work=work, out=out, kinds=("onnxruntime",),
        variants=("guided", "decoder"), device="cpu", size=32, batch=1, steps=2, compile_mode="", seconds=0.1, rounds=3,
        patience=5, cores=(0,),
    )  # fmt: skip
    Measurement(settings).run()
    found = json.loads((out / "micro.json").read_text())
    assert set(found["times"]) == {"guided", "decoder"}
    assert found["engines"]["guided"]["onnxruntime"]["snr_db"] > 30
    assert found["image"]["onnxruntime"]["psnr_db"] > 30
    assert "error" not in json.dumps(found)
    training.run(source, "koala-700m", out, work, "cpu", size=32, steps=2, batch=1, patience=5)
    trained = json.loads((out / "distill.json").read_text())["distill"]
    assert trained["steps"] == 2
    assert trained["run_s"] > 0
    assert trained["student"] < trained["teacher"]


def test_everybody_has_turns_and_ratios_are_medians_over_rounds():
    order = []
    times = runners.race({name: lambda name=name: order.append(name) for name in "abc"}, 0.0, 30)
    assert "".join(order) == "abcbcacab", "three rounds at least, another one first each time"
    assert [len(each) for each in times.values()] == [3, 3, 3]
    found = runners.told({"torch": [2.0, 4.0, 9.0], "engine": [1.0, 1.0, 3.0]}, "torch")
    assert found["engine"] == {"ms": 1.0, "p95": 3.0, "rounds": 3, "speedup": 3.0}


def test_what_fails_is_a_result_and_the_rest_goes_on(tmp_path):
    record = Record(tmp_path / "model.json")
    with record.attempt("engines", "guided", "cuda"):
        raise UnsupportedError("no GPU")
    with record.attempt("engines", "guided", "other"):
        record.note("engines", "guided", "other", build_s=1.0)
    found = json.loads((tmp_path / "model.json").read_text())["engines"]["guided"]
    assert found["cuda"]["error"] == "UnsupportedError: no GPU"
    assert found["other"] == {"build_s": 1.0}
    with pytest.raises(KeyboardInterrupt), record.attempt("stop"):
        raise KeyboardInterrupt


def test_who_measures_stops_the_others_and_lets_them_go_on(tmp_path):
    folder = tmp_path / "gate"
    other = """
import pathlib, sys, time
from tools.gpu.record import Gate
gate = Gate(pathlib.Path(sys.argv[1]))
gate._folder = gate._folder / "nobody"  # it shall not stop the test
print(gate.alone(0.1), flush=True)
sys.stdin.readline()
gate.share()
print("on", flush=True)
time.sleep(60)
"""
    gate = Gate(folder)
    with subprocess.Popen(
        [sys.executable, "-c", other, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == "True\n"
            os.kill(process.pid, signal.SIGSTOP)  # as if somebody had stopped it
            assert not gate.alone(0.1), "the other one measures"
            gate.share()
            assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "who did not get its turn wakes nobody"
            os.kill(process.pid, signal.SIGCONT)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "on\n"
            assert gate.alone(5)
            assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
            gate.share()
            assert psutil.Process(process.pid).status() != psutil.STATUS_STOPPED
            assert gate.alone(5)
            wake(folder)  # as if the one who measures had been killed
            assert psutil.Process(process.pid).status() != psutil.STATUS_STOPPED
            gate.leave()
            assert not (folder / str(os.getpid())).exists()
        finally:
            process.kill()


def test_a_job_that_hangs_or_breaks_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(smoke, "_command", lambda arguments: [sys.executable, "-c", *arguments])
    jobs = {"good": ["print(1)"], "bad": ["raise SystemExit('no memory')"], "late": ["import time; time.sleep(60)"]}
    smoke.run(jobs, tmp_path, tmp_path, 5)
    assert not (tmp_path / "good.failed.json").exists()
    bad, late = (json.loads((tmp_path / f"{name}.failed.json").read_text()) for name in ("bad", "late"))
    assert bad == {"error": "exit status 1", "words": ["no memory"]}
    assert late["error"] == "killed after 5 s"


def test_the_page_shows_times_and_failures():
    times = runners.told({"torch": [2.0], "cuda": [1.0]}, "torch")
    koala = {
        "graphs": {"guided": {"nodes": 1}},
        "times": {"guided": times},
        "image": {"steps": 25, "cuda": times["cuda"] | {"psnr_db": 50.1}},
        "engines": {"guided": {"cuda": {"open_s": 2, "snr_db": 51}, "tensorrt_rtx": {"error": "UnsupportedError:\n no engines"}}},
        "batches": {"cuda": {"4": {"ms": 8.0}}},
        "parallel": {"cuda": {"window=8": {"s": 1, "speedup": 2}}},
    }
    page = table.page({"koala-700m": koala, "distill": {"distill": {"s_per_step": 0.3}}, "environment": {"gpu": "H200"}})
    assert "| koala-700m | UNet, batch 2 (guidance) | cuda | 2.0 | 1.0 | 1.0 | 1 | – |" in page
    assert "| koala-700m | image, 25 steps and decoder | cuda | 2.0 | 1.0 | 1.0 | 1 | 50.1 |" in page
    assert "| koala-700m | cuda | 4 | 8.0 | 2.0 |" in page
    assert "- s_per_step: 0.3" in page
    assert "- **koala-700m / engines / guided / tensorrt_rtx**: UnsupportedError: no engines" in page
    assert "Nothing." in table.page({})


def test_jobs_are_what_was_asked_for(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(smoke, "run", lambda jobs, *_: seen.update(jobs))
    monkeypatch.setattr(smoke, "_environment", dict)
    asked = ["--out", str(tmp_path), "--phases", "prepare,models,distill", "--models", "koala-1b,sdxl-base"]
    done = CliRunner().invoke(
        smoke.main, [*asked, "--engines-of", "sdxl-base=cuda-graph", "--engines", "cuda", "--variants-of", "sdxl-base=guided"]
    )
    assert done.exit_code == 0, done.output
    assert list(seen) == ["koala-1b-prepare", "sdxl-base-prepare", "koala-1b", "sdxl-base", "distill"]
    settings = {name: json.loads(arguments[1]) for name, arguments in seen.items()}
    assert settings["koala-1b"]["kinds"] == ["cuda"]
    assert (settings["sdxl-base"]["kinds"], settings["sdxl-base"]["variants"]) == (["cuda-graph"], ["guided"])
    assert settings["koala-1b"]["variants"] == ["guided", "plain", "decoder"]
    assert settings["sdxl-base-prepare"]["prepare"]
    assert (tmp_path / "table.md").is_file()
    wrong = CliRunner().invoke(smoke.main, ["--out", str(tmp_path), "--models", "flux"])
    assert "there is no flux" in wrong.output


def test_every_engine_has_options_that_its_backend_takes():
    for kind in runners.KINDS.values():
        made = kind.make()
        assert {name: getattr(made, name) for name in kind.options if name != "providers"} == {
            name: value for name, value in kind.options.items() if name != "providers"
        }
        for name in kind.passes:
            assert callable(plugins.load("graph", name))


def test_snr_of_nothing_finite():
    assert np.isnan(runners.snr(np.full(3, np.nan), np.ones(3)))
    assert runners.snr(np.ones(3) * 1.1, np.ones(3)) == pytest.approx(20.0)

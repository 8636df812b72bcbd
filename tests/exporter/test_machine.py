import sys

import pytest

from engines.errors import UnsupportedError
from exporter import machine


def test_the_environment_says_what_a_figure_depends_on(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = machine.environment()
    assert found.processor
    assert found.cores >= 1
    assert found.memory > 2**28
    assert found.python == sys.version.split()[0]
    assert found.libraries["numpy"]
    assert found.threads["OMP_NUM_THREADS"] == "3"
    assert found.processor in found.sentence
    assert found.date[:10] in found.sentence
    assert machine.Environment.model_validate_json(found.model_dump_json()) == found


def test_the_machine_names_the_instructions_that_multiply(monkeypatch):
    told = {"flags": "fpu avx2 avx512f avx512_bf16 amx_bf16 avx512_vnni"}
    monkeypatch.setattr(machine, "_told", lambda *names: next((told[name] for name in names if name in told), ""))
    found = machine.environment()
    assert found.instructions == ("AMX_BF16", "AVX512_BF16", "AVX512_VNNI", "AVX512", "AVX2")
    assert "(AMX_BF16, AVX512_BF16, AVX512_VNNI, AVX512, AVX2), " in found.sentence
    told.clear()
    assert machine.environment().instructions == ()
    assert "()" not in machine.environment().sentence


def test_a_fresh_process_is_measured_by_itself():
    ballast = bytearray(b"x" * 2**27)  # of this process, not of the one that is measured
    small = machine.cold(["-c", "pass"])
    large = machine.cold(["-c", "x = bytearray(b'x' * 2**26)"])
    assert small.seconds > 0
    assert small.peak < len(ballast)
    assert large.peak - small.peak > 2**25


def test_a_fresh_process_that_fails_says_why():
    with pytest.raises(UnsupportedError, match=r"status 3:\nno such model"):
        machine.cold(["-c", "import sys; sys.stderr.write('no such model\\n'); sys.exit(3)"])


def test_gpus_tell_their_compute_capability(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.compute_capabilities() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\ncase $1 in *compute_cap) echo 9.0; echo 8.9; echo 9.0;; *) echo NVIDIA L4;; esac\n")
    program.chmod(0o755)
    assert machine.compute_capabilities() == ["8.9", "9.0"]
    assert machine.environment().accelerator == "NVIDIA L4"

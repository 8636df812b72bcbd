"""The machine that a figure belongs to, and how a fresh process does on it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from pydantic import Field

from engines import plugins
from engines.errors import UnsupportedError
from engines.strict import Frozen

#: Distributions whose versions a figure depends on, where they are installed, besides those of backends.
_LIBRARIES = ("t2iexport", "numpy", "pillow", "tokenizers", "torch", "diffusers", "transformers")
#: A process's peak counts what it was before it became another program, so the one that is measured is started by a small one.
_LAUNCHER = """
import json, os, sys, time
start = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(child, 0)
seconds = time.perf_counter() - start
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, used.ru_maxrss]), file=sys.stderr)
"""


#: Flags of the system → instructions that decide how fast numbers are multiplied, the quickest first.
_INSTRUCTIONS = {
    "amx_bf16": "AMX_BF16",
    "amx_int8": "AMX_INT8",
    "avx512_bf16": "AVX512_BF16",
    "avx512_vnni": "AVX512_VNNI",
    "avx_vnni": "AVX_VNNI",
    "avx512f": "AVX512",
    "avx2": "AVX2",
    "i8mm": "I8MM",
    "sve": "SVE",
}


class Environment(Frozen):
    """What ran the benchmark. Memory in bytes; `threads` is what the environment allows numerical libraries, if it says."""

    processor: str
    instructions: tuple[str, ...] = Field(default=(), description="that multiply numbers; none where the system does not tell")
    cores: int = Field(ge=1, description="that this process may use")
    memory: int
    accelerator: str = ""
    system: str
    python: str
    libraries: dict[str, str]
    threads: dict[str, str]
    load: float = Field(description="processes waiting for a core, mean of one minute, when the benchmark began")
    date: str

    @property
    def sentence(self) -> str:
        """The machine in a line."""
        gpu = f", {self.accelerator}" if self.accelerator else ""
        cores = f"{self.cores} core{'s' * (self.cores > 1)}"
        told = f" ({', '.join(self.instructions)})" if self.instructions else ""
        return f"{self.processor}{told}, {cores}, {self.memory / 2**30:.0f} GiB{gpu}; load {self.load:.1f}; {self.date[:10]}"


class Cold(Frozen):
    """A fresh process from its start to its end: seconds, and the peak of its resident memory in bytes."""

    seconds: float
    peak: int


def environment() -> Environment:
    """Describe this machine, and the libraries that are installed."""
    versions = {}
    ours = (name for backend in plugins.known("backends").values() for name in backend.distributions)
    for name in (*_LIBRARIES, *ours):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Environment(
        processor=_told("model name") or platform.processor() or platform.machine(),
        instructions=_instructions(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        accelerator=_accelerator(),
        system=platform.platform(),
        python=platform.python_version(),
        libraries=versions,
        threads={name: value for name, value in sorted(os.environ.items()) if name.endswith("_NUM_THREADS")},
        load=round(os.getloadavg()[0], 2),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def cold(command: Sequence[str], variables: dict[str, str] | None = None, python: str = sys.executable) -> Cold:
    """Run a Python program (arguments after the interpreter, which may be another environment's) in a fresh process.

    The interpreter, the imports and the files' reading count; what the system keeps of the files in its cache does not go.

    Raises:
        UnsupportedError: it failed; with the last lines that it printed.

    """
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, python, *command]
    done = subprocess.run(launcher, capture_output=True, text=True, check=False, env={**os.environ, **(variables or {})})  # noqa: S603 - our own interpreter
    *said, measured = done.stderr.strip().splitlines() or [""]
    if done.returncode:
        raise UnsupportedError(f"{sys.executable} could not be started afresh:\n{done.stderr[-2000:]}")
    status, seconds, peak = json.loads(measured)
    if status:
        told = "\n".join(said[-5:])
        raise UnsupportedError(f"a fresh process ended with status {status}:\n{told}")
    return Cold(seconds=seconds, peak=peak * (1 if sys.platform == "darwin" else 1024))


def _told(*names: str) -> str:
    """What the system says of its first processor under one of these names; empty where it does not."""
    return next((line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith(names)), "")


def _instructions() -> tuple[str, ...]:
    flags = _told("flags", "Features").split()
    return tuple(name for flag, name in _INSTRUCTIONS.items() if flag in flags)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def compute_capabilities() -> list[str]:
    """Of this machine's NVIDIA GPUs, such as 8.9, each once."""
    return sorted(set(_queried("compute_cap")))


def _accelerator() -> str:
    return ", ".join(_queried("name"))


def _queried(what: str) -> list[str]:
    """A word of each GPU that NVIDIA's driver knows."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    asked = [program, f"--query-gpu={what}", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603 - no input of anybody
    return [] if done.returncode else [line.strip() for line in done.stdout.splitlines() if line.strip()]

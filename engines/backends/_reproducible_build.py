"""A build in a process of its own that starts alike every time, for compilers whose output depends on where things lie in memory.

TensorRT-RTX 1.7 orders some of its records by address, and some by which thread came first: two builds of one graph then
differ in a few hundred bytes. With fixed addresses, one processor, memory that nothing else has used, and threads that take
turns in an order that no other program's load decides they are the same.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engines import plugins
from engines.errors import T2IError, UnsupportedError
from engines.signature import Signature
from engines.strict import Frozen

#: `personality(2)`: no address space randomization, from the next exec on.
_ADDR_NO_RANDOMIZE = 0x0040000
#: Variables that the process sees; the others would shift its stack.
_KEPT = ("PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR")
#: Where the building process finds its folder, its graph's folder and its request: descriptors, since paths vary in length.
_FOLDER, _GRAPH, _REQUEST = 200, 201, 202


def build(plugin: str, options: Frozen, onnx: Path, signature: Signature, folder: Path) -> list[Path]:
    """Have `options.build_here(onnx, signature, folder)` run in such a process; the files that it made.

    Raises:
        UnsupportedError: as the build said, or the process was killed.
        OSError: the engine could not be written.

    """
    folder.mkdir(parents=True, exist_ok=True)
    request = {"plugin": plugin, "options": options.model_dump(mode="json"), "onnx": str(onnx.resolve())}
    request |= {"signature": signature.model_dump(mode="json"), "folder": str(folder.resolve())}
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", "from engines.backends._reproducible_build import prepare; prepare()"],
        input=json.dumps(request).encode(),
        capture_output=True,
        env={**environment, "PYTHONHASHSEED": "0", "PYTHONPATH": path},
        check=False,
    )
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode or not lines:
        told = "\n".join(f"  {line}" for line in done.stderr.decode(errors="replace").splitlines()[-3:])
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit status {done.returncode}"
        memory = " Most likely memory ran out: build on a larger machine." if done.returncode == -signal.SIGKILL else ""
        raise UnsupportedError(f"{onnx.name}: the process that built it ended with {how}.{memory}\n{told}".rstrip())
    answer = json.loads(lines[-1])
    if "errno" in answer:
        raise OSError(answer["errno"], answer["text"], str(folder))
    if "text" in answer:
        raise UnsupportedError(answer["text"])
    return [folder / name for name in answer["files"]]


def prepare() -> None:
    """Take the request from the pipe, arrange what the building process finds, and become it."""
    request: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    plugins.load("backends", request["plugin"])  # so that its bytecode is on disk, and is read alike from now on
    onnx = Path(request.pop("onnx"))
    os.dup2(os.open(request.pop("folder"), os.O_RDONLY), _FOLDER)
    os.dup2(os.open(onnx.parent, os.O_RDONLY), _GRAPH)
    content = os.memfd_create("request")
    os.write(content, json.dumps({**request, "onnx": onnx.name}).encode())
    os.dup2(content, _REQUEST)
    os.chdir("/")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    # A thread that another one starts runs when that one waits, however busy the machine is.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    ctypes.CDLL(None).personality(_ADDR_NO_RANDOMIZE)  # where it is forbidden, the build goes on without
    command = [sys.executable, "-c", "from engines.backends._reproducible_build import main; main()"]
    os.execv(command[0], command)  # noqa: S606 - this program again


def main() -> None:
    """Build, and answer with one line of JSON."""
    request: dict[str, Any] = json.loads(os.pread(_REQUEST, os.fstat(_REQUEST).st_size, 0))
    options = plugins.load("backends", request["plugin"]).model_validate(request["options"])
    graph = Path(f"/proc/self/fd/{_GRAPH}/{request['onnx']}")
    try:
        signature = Signature.model_validate(request["signature"])
        # A thread's memory comes from an arena of its own, in which nothing lies of what was imported before.
        with ThreadPoolExecutor(1) as apart:
            made = apart.submit(options.build_here, graph, signature, Path(f"/proc/self/fd/{_FOLDER}")).result()
    except T2IError as error:
        answer: dict[str, Any] = {"text": str(error)}
    except OSError as error:
        answer = {"errno": error.errno, "text": error.strerror}
    else:
        answer = {"files": [file.name for file in made]}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")

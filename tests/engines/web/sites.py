"""Small bundles that a page draws with: real graphs behind CLIP's tokenizer."""

import json
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np

from engines.bundle import draft, write
from engines.signature import Port, Range
from engines.web import site
from tests.engines import small
from tests.engines.web import javascript


def clip(folder, graphs, **changes):
    """The small bundle with CLIP's tokenizer and those graphs, by part."""
    made = small.make(folder, graphs=graphs, **changes)
    (folder / "tokenizers/tokenizer.json").write_text(json.dumps(javascript.clip_json()), encoding="utf-8")
    return write(folder, draft(made.manifest))


def resting():
    """Changes that give the denoiser an input which rests at zero, as a LoRA's do."""
    parts = dict(small.draft().parts)
    signature = parts["unet"].signature
    detail = Port(name="detail", shape=("batch", "rank"), optional=True)
    dims = {**signature.dims, "rank": Range(min=3, typical=3, max=6)}
    signature = signature.model_copy(update={"inputs": (*signature.inputs, detail), "dims": dims})
    return {"parts": {**parts, "unet": parts["unet"].model_copy(update={"signature": signature})}}


@dataclass
class Served:
    """A site on this machine's loopback: its address, and the paths that were asked for."""

    address: str
    asked: list[str]
    server: ThreadingHTTPServer

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments, asked, headers, **options):
        self.asked, self.sent = asked, headers
        super().__init__(*arguments, **options)

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def end_headers(self):
        for name, value in self.sent.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_):
        pass


def serve(folder, headers):
    """Serve a folder as `python -m http.server` does, with headers beside its own."""
    asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, asked=asked, headers=headers, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    return Served(f"http://127.0.0.1:{server.server_port}/", asked, server)


def psnr(one, other):
    """Of two pictures of 8 bits, in dB."""
    error = np.mean((np.asarray(one, np.float64) - np.asarray(other, np.float64)) ** 2)
    return 10 * np.log10(255**2 / error) if error else np.inf


def written(bundle, folder, library):
    site.write(bundle.folder, folder, library)
    return folder

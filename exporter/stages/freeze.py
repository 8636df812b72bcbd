"""A bundle's recipe with its measured choices written out, so that the next build has nothing to choose."""

from __future__ import annotations

import io
from pathlib import Path

from engines import plugins
from engines.bundle import Bundle


def written(path: Path) -> str:
    """YAML: the bundle's own recipe, in which every `quantize` names the layers that were kept instead of how to choose them.

    Raises:
        BundleError: it is no bundle, damaged or too new.

    """
    from ruamel.yaml import YAML  # noqa: PLC0415 - a bundle is described without it

    from exporter.quantization.calibration import read  # noqa: PLC0415

    bundle = Bundle.open(path)
    manifest = bundle.manifest
    yaml = YAML()
    yaml.width = 120
    document = yaml.load(manifest.recipe)
    for name, part in manifest.parts.items():
        for step in (document.get("components") or {}).get(name, {}).get("passes", ()):
            pass_name, options = next(iter(step.items())) if isinstance(step, dict) else (step, {})
            if part.quantized and plugins.load("passes", pass_name).kind == "graph":
                for chooser in ("keep_above", "budget"):
                    options.pop(chooser, None)
                options["keep"] = list(part.quantized.kept)
                if options.get("rest", "none") != "none":
                    found = read(bundle.path(part.quantized.calibration), name)
                    options["untouched"] = [layer for layer in found.kept if layer not in found.layers]
    text = io.StringIO()
    yaml.dump(document, text)
    return text.getvalue()

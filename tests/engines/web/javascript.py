"""The page's own JavaScript, run by node beside what it repeats of Python."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from engines.web import site

STATIC = Path(site.__file__).parent / "static"
ROOT = Path(__file__).parents[3]
NODE = shutil.which("node")


def run(code, **given):
    """What `code` returns, as JSON: the body of an async function that has the page's modules and the names that are given."""
    if NODE is None:
        pytest.skip("there is no node, which runs the page's JavaScript without a browser")
    modules = sorted(path.stem for path in STATIC.glob("*.js") if path.stem not in {"page", "worker"})
    script = [f"import * as {name} from {json.dumps((STATIC / f'{name}.js').as_uri())};" for name in modules]
    script += ['import { readFileSync } from "node:fs";', 'const all_given = JSON.parse(readFileSync(0, "utf-8"));']
    script += [f"const {{ {', '.join(given) or '_'} }} = all_given;", f"const made = await (async () => {{ {code} }})();"]
    script += ["process.stdout.write(JSON.stringify(made));"]
    command = [NODE, "--input-type=module", "-e", "\n".join(script)]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def clip_json(*words, **changes):
    """The demo's tokenizer, CLIP's with few merges, as a bundle holds it; `words` are added as textual inversions are."""
    content = json.loads((ROOT / "recipes/demo/tokenizer/tokenizer.json").read_text(encoding="utf-8"))
    size = max(token["id"] for token in content["added_tokens"]) + 1
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    content["added_tokens"] += [{"id": size + number, "content": word, **flags} for number, word in enumerate(words)]
    end = content["model"]["vocab"]["<|endoftext|>"]
    padding = {"strategy": {"Fixed": 77}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": end, "pad_type_id": 0}
    return {**content, "padding": {**padding, "pad_token": "<|endoftext|>"}, **changes}

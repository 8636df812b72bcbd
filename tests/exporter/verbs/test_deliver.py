"""`convert`, `rebuild` and `triton`: what they ask, print and refuse; `web` is in tests/engines/web."""

import pytest


def test_convert_hands_on_what_was_asked_and_says_what_came(run, bundle, monkeypatch, tmp_path):
    asked = []

    def convert(folder, layout, output, _store, _lines, say):
        asked.append((folder, layout, output))
        say("the tokenizer is copied")
        return ["guidance is the caller's"]

    monkeypatch.setattr("exporter.build.convert", convert)
    code, out, err = run("convert", bundle.folder, "--to", "optimum", "-o", tmp_path / "there")
    assert (code, out.splitlines()) == (0, ["note: guidance is the caller's", str(tmp_path / "there")])
    assert "the tokenizer is copied" in err
    assert asked == [(bundle.folder, "optimum", tmp_path / "there")]
    assert run("convert", bundle.folder, "--to", "keras", "-o", tmp_path / "there")[0] == 2


def test_rebuild_says_each_engine(run, bundle, monkeypatch):
    def rebuild(folder, backend, say):
        say(f"{folder.name} for {backend}")
        return ["unet: built"]

    monkeypatch.setattr("engines.rebuild.rebuild", rebuild)
    assert run("rebuild", bundle.folder, "--backend", "onnxruntime")[:2] == (0, "small for onnxruntime\nunet: built\n")


@pytest.mark.parametrize("verb", ["convert --to optimum", "rebuild", "triton", "web"])
def test_what_is_no_bundle_is_told(run, tmp_path, verb):
    words = verb.split()
    there = [] if verb == "rebuild" else ["-o", tmp_path / "there"]
    code, _, err = run(words[0], tmp_path, *words[1:], *there)
    assert (code, "manifest.json is missing" in err) == (6, True)

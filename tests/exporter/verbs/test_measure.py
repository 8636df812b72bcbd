"""`bench`: what it asks, prints and writes."""

import json


def test_bench_asks_and_writes_what_it_found(run, bundle, monkeypatch, tmp_path):
    from tests.exporter.bench.test_run import report

    asked = []

    def bench(path, against, **options):
        options.pop("say")("opening")
        asked.append((path, against, options))
        return report()

    monkeypatch.setattr("exporter.bench.run.bench", bench)
    code, out, err = run("bench", bundle.folder)
    assert (code, err) == (0, "opening\n")
    assert "where the time of mine goes" in out
    wishes = ("--against", "diffusers", "--against", "x", "--batch", "1,4", "--repeats", 3, "--steps", 2, "--operators")
    code, _, err = run("bench", bundle.folder, *wishes, "--json", tmp_path / "b.json", "--plot", tmp_path / "b.svg")
    assert code == 0, err
    assert asked == [
        (bundle.folder, (), {"batches": [1], "repeats": 10, "steps": None, "profile": False}),
        (bundle.folder, ("diffusers", "x"), {"batches": [1, 4], "repeats": 3, "steps": 2, "profile": True}),
    ]
    assert json.loads((tmp_path / "b.json").read_text())["psnr"]["reference"] == "diffusers"
    assert (tmp_path / "b.svg").read_text().startswith("<?xml")
    for wrong, told in ((("--batch", "1,x"), "'1,x' is not a list of batches"), (("--plot", "b.txt"), "must end in .png")):
        code, _, err = run("bench", bundle.folder, *wrong)
        assert code == 2
        assert told in err
    assert len(asked) == 2

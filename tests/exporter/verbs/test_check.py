"""`check`: what it prints and writes."""

import json
from xml.etree import ElementTree as ET

from engines.errors import ParityError
from tests.exporter.verbs.samples import BAD, GOOD


def test_check_writes_what_it_found(run, bundle, monkeypatch, tmp_path):
    asked = []

    def check(_path, backend, say, *, receipt):
        asked.append(receipt)
        say("the disk is read-only")
        return [GOOD, BAD] if backend == "b" else [GOOD]

    monkeypatch.setattr("exporter.build.check", check)
    code, out, err = run("check", bundle.folder)
    assert (code, err) == (0, "note: the disk is read-only\n")
    assert "60.0 dB" in out
    run("check", bundle.folder, "--no-receipt")
    assert asked == [True, False]
    code, out, err = run("check", bundle.folder, "--backend", "b", "--json", tmp_path / "v.json", "--junit", tmp_path / "v.xml")
    assert (code, out) == (ParityError.exit_code, "")
    assert "FAIL" in err
    assert "1 of 2 comparisons are out of limits" in err
    assert [verdict["passed"] for verdict in json.loads((tmp_path / "v.json").read_text())["verdicts"]] == [True, False]
    suite = ET.parse(tmp_path / "v.xml").getroot()  # noqa: S314 - it was written two lines above
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert suite.find("testcase/failure").get("message") == "PSNR 12.5 dB; limit 45 dB. half"

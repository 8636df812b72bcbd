"""A stage's result is typed, made when it is asked for, and read by those alone whose key tells of it."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from exporter.stages.stage import Results, Stage, closure
from exporter.stages.store import Store


@dataclass(frozen=True)
class Number:
    folder: Path

    @property
    def value(self):
        return int((self.folder / "number").read_text())


def _add(folder, results, terms, more):
    value = sum(results[each].value for each in terms) + more
    (folder / "number").write_text(str(value))


def _leave_off(folder, results):
    (results.unfinished / "half").touch()
    (folder / "number").write_text("0")


def add(subject, *terms, more=0, told=None):
    inputs = {each.subject: each for each in (terms if told is None else told)}
    return Stage.keyed("add", subject, partial(_add, terms=terms, more=more), Number, options={"more": more}, inputs=inputs)


@pytest.fixture
def results(tmp_path):
    return Results(Store(tmp_path))


def test_a_result_is_made_with_all_that_it_needs(results, tmp_path):
    one, two = add("one", more=1), add("two", more=2)
    three = add("three", one, two)
    assert results[three].value == 3
    assert results.folder(three).parent.parent == tmp_path / "entries"
    assert closure([three]) == {one, two, three}


def test_what_is_in_the_store_is_opened_and_what_it_needed_is_not_made(tmp_path):
    one = add("one", more=1)
    assert Results(Store(tmp_path))[add("two", one)].value == 1
    entries = list((tmp_path / "entries").iterdir())
    assert len(entries) == 2
    for entry in entries:
        if entry.name == str(one.key):
            entry.rename(tmp_path / "gone")
    assert Results(Store(tmp_path))[add("two", one)].value == 1
    assert len(list((tmp_path / "entries").iterdir())) == 1


def test_a_stage_reads_only_what_its_key_tells_of(results):
    one = add("one", more=1)
    with pytest.raises(LookupError, match="add one is not in the key of the stage that reads it"):
        _ = results[add("two", one, told=[])]
    through = add("three", one, told=[add("two", one)])
    assert results[through].value == 1, "what the key tells of by way of another"


def test_the_key_is_of_the_inputs_keys_and_of_who_makes_and_opens():
    one, other = add("one", more=1), add("one", more=2)
    assert add("two", one).key.digest != add("two", other).key.digest
    assert add("two", one).key.digest == add("two", add("one", more=1)).key.digest
    named = Stage.keyed(
        "add", "two", partial(_add, terms=(one,), more=0), Number, options={"more": 0}, inputs={"one": str(one.key)}
    )
    assert named.key.ingredients["inputs"] == add("two", one).key.ingredients["inputs"]
    assert named.needs == ()


def test_one_that_resumes_has_a_folder_of_its_own(results, tmp_path):
    stage = Stage.keyed("pass", "unet", _leave_off, Number, options={}, inputs={}, resumes=True)
    (folder := tmp_path / "here").mkdir()
    results.fill(stage, folder)
    assert [file.name for file in (tmp_path / "unfinished").rglob("half")] == ["half"]


def test_a_folder_can_be_put_in_a_result_s_place(results, tmp_path):
    one = add("one", more=1)
    (tmp_path / "number").write_text("7")
    results.put(one, tmp_path)
    assert results[add("two", one)].value == 7

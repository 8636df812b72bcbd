"""Whatever a user brings ends in a sentence, never in a traceback.

`T2IEXPORT_ODD=10000 pytest tests/exporter/test_odd_inputs.py` tries so many; `T2IEXPORT_ODD=17-18` tries number 17 alone.
"""

import os
import traceback
from collections import defaultdict

import pytest

from tests.exporter import odd

#: How many each run of the tests tries: some seconds.
USUAL = 100
#: One in so many is recorded as well, which takes as long as the rest of it.
RECORDED = 10


@pytest.mark.timeout(0)
@pytest.mark.parametrize("model", ["tiny_sd", "tiny_sdxl"])
def test_no_odd_input_ends_in_a_traceback(model, request, tmp_path):
    asked = os.environ.get("T2IEXPORT_ODD", str(USUAL))
    start, _, stop = asked.rpartition("-")
    source, found, seen = request.getfixturevalue(model), defaultdict(list), 0
    for number in range(int(start or 0) + (model == "tiny_sdxl"), int(stop), 2):
        place = tmp_path / str(number)
        place.mkdir()
        case = odd.odd(number, source, place)
        seen += 1
        error = odd.outcome(case, record=number % RECORDED < 2)
        if error is not None:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if "/exporter/" in frame.filename or "/engines/" in frame.filename]
            where = f"{ours[-1].filename}:{ours[-1].lineno}" if ours else "nowhere"
            found[f"{type(error).__name__} at {where}: {error!s:.200}"].append(f"{number}: {'; '.join(case.done)}")
        odd.shutil.rmtree(place)
    told = "\n".join(f"{len(cases)} × {what}\n    {cases[0]}" for what, cases in found.items())
    assert not found, f"{sum(map(len, found.values()))} of {seen} end in a traceback:\n{told}"

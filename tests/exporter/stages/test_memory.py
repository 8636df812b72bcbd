"""What a build has done with does not stand in the way of what comes next."""

import subprocess
import sys

#: Weights of a few megabytes each, made of temporary ones of twice the size, and small things that stay between them.
_PROGRAM = """
import gc, psutil, torch
from exporter.stages.memory import release
held = lambda: psutil.Process().memory_info().rss
before, weights, kept = held(), [], []
for number in range(150):
    weights.append(torch.ones(1_000_000 + 10_000 * number).to(torch.float16))
    kept.append(torch.zeros(50))
most = held() - before
del weights
gc.collect()
freed = held() - before
release()
print(most, freed, held() - before)
"""


def test_what_nothing_uses_is_given_back():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    most, freed, left = map(int, done.stdout.split())
    assert most > 200e6
    assert freed > most / 2, "which the collector alone leaves with the process"
    assert left < most / 5

"""A program that serves a bundle of Python functions, whose denoiser takes its time, with the real command."""

PROGRAM = """
import functools, sys, time
from tests.engines.serve.conftest import opened
from engines import pipeline
slow = functools.partial(opened, slow=lambda part: time.sleep(0.5 if part == "unet" else 0))
pipeline.Pipeline.open = staticmethod(lambda path, backend=None, wrap=None: slow(path, wrap))
from engines.__main__ import main
sys.argv[1:1] = ["serve"]
main()
"""

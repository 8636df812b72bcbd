"""Who makes what: the makers that stages are keyed by, and what these read and run while they are at work."""

import contextlib
import sys

import pytest

from exporter.stages import keys
from exporter.stages.closure import ROOT


@contextlib.contextmanager
def makers():
    """Digest of a key → the makers that it was made of; of all keys that are made meanwhile."""
    found, own = {}, keys.key_of

    def key_of(verb, subject, options, inputs, who, versions=None):
        key = own(verb, subject, options, inputs, who := tuple(who), versions)
        found[key.digest] = who
        return key

    with pytest.MonkeyPatch.context() as patch:
        for module in [module for module in sys.modules.values() if getattr(module, "key_of", None) is own]:
            patch.setattr(module, "key_of", key_of)
        yield found


@contextlib.contextmanager
def reading(kinds, told):
    """Call `told` with every model of these kinds of which a field is read, and the field."""

    def watched(kind, plain):
        def get(model, name):
            if name in kind.model_fields:
                told(model, name)
            return plain(model, name)

        return get

    with pytest.MonkeyPatch.context() as patch:
        for kind in kinds:
            patch.setattr(kind, "__getattribute__", watched(kind, kind.__getattribute__))
        yield


@contextlib.contextmanager
def running():
    """File and qualified name of every function of ours that is called."""
    found = set()

    def called(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(ROOT)):
            found.add((code.co_filename, code.co_qualname))

    sys.setprofile(called)
    try:
        yield found
    finally:
        sys.setprofile(None)

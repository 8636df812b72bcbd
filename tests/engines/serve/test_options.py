import pytest

from engines.errors import UnsupportedError
from engines.serve.options import ServeOptions


def test_settings_are_read_from_text():
    options = ServeOptions.of({"queue": "3", "wait_ms": "1.5", "batching": "fixed", "memory": "2"}, keys=("k",))
    assert (options.queue, options.wait_ms, options.batching, options.memory, options.keys) == (3, 1.5, "fixed", 2.0, ("k",))


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ({"quee": "3"}, "no key 'quee'; did you mean 'queue'[?]"),
        ({"keys": "secret"}, "no key 'keys'"),  # it would stand in the list of processes
        ({"queue": "0"}, "queue: Input should be greater"),
        ({"queue": "many"}, "queue: Input should be a valid integer"),
        ({"wait_ms": "nan"}, "wait_ms"),
        ({"batching": "some"}, "batching: Input should be"),
    ],
)
def test_what_is_wrong_is_told(pairs, text):
    with pytest.raises(UnsupportedError, match=text):
        ServeOptions.of(pairs)


def test_who_mistypes_a_key_is_told_every_one_that_can_be_set():
    with pytest.raises(UnsupportedError) as caught:
        ServeOptions.of({"quee": "3"})
    first, second, *told = [line.strip() for line in str(caught.value).splitlines()]
    assert (first, second) == ("--set: no key 'quee'; did you mean 'queue'?", "There are:")
    names = [line.partition("=")[0] for line in told]
    assert "queue=64  pictures that may wait; what would be more is refused with status 429" in told
    assert set(names) == set(ServeOptions.model_fields) - {"keys", "cors", "loras"}

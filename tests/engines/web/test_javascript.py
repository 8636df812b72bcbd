"""The page's JavaScript against the Python that it repeats."""

import base64
import io
import json
import random
import re
import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

from engines.errors import UnsupportedError
from engines.images.noises import seeded
from engines.images.png import picture
from engines.manifest import Tokenizer
from engines.sampler_ops import Draw, Emit, Eval, Scaled
from engines.samplers.table import Table, TableProvenance
from engines.tokenizer import TextTokenizer
from tests.engines.web import javascript

#: In JavaScript: numbers → text, to the last bit.
BASE64 = "const base64 = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString('base64');"
#: Where the ziggurat ends, beyond which the C library's logarithm has its say.
EDGE = np.float32(3.6541528853610088)


def floats(text):
    return np.frombuffer(base64.b64decode(text), np.float32)


@pytest.fixture(scope="module")
def noise():
    """Seed → two draws, each of JavaScript and of Python."""
    seeds, counts = [0, 7, 2**32 + 1, 2**64 - 1], [200_001, 100_000]
    code = """
    return seeds.map((seed) => {
      const stream = new noise.Noise(BigInt(seed));
      return counts.map((count) => base64(stream.draw(count)));
    });
    """
    drawn = javascript.run(BASE64 + code, seeds=list(map(str, seeds)), counts=counts)
    expected = []
    for seed in seeds:
        stream = np.random.Generator(np.random.Philox(key=seed))
        expected.append([stream.standard_normal(count, np.float32) for count in counts])
    return [(np.concatenate([*map(floats, ours)]), np.concatenate(theirs)) for ours, theirs in zip(drawn, expected, strict=True)]


def test_noise_is_numpy_s_bit_for_bit(noise):
    for ours, theirs in noise:
        inside = np.abs(theirs) <= EDGE
        assert np.array_equal(ours[inside].view(np.uint32), theirs[inside].view(np.uint32))
        assert 0.999 < inside.mean() < 1


def test_in_the_tail_the_last_bit_is_the_c_library_s(noise):
    for ours, theirs in noise:
        outside = np.abs(theirs) > EDGE
        assert np.allclose(ours[outside], theirs[outside], rtol=2e-7, atol=0)


def test_noise_is_the_run_time_s_own():
    code = "return base64(new noise.Noise(5n).draw(256));"
    assert np.array_equal(floats(javascript.run(BASE64 + code)), seeded([5], (1, 4, 8, 8), "numpy")().ravel())


@pytest.mark.skipif(sys.byteorder == "big", reason="numpy's tables lie in its library as this machine writes numbers")
def test_the_ziggurat_is_the_one_that_numpy_s_library_holds():
    library = np.random._generator.__file__
    with open(library, "rb") as file:  # noqa: PTH123 - numpy's word for it is a str
        content = file.read()
    code = "const { stops, widths, heights } = noise.ziggurat(); return [stops, widths, heights].map(base64);"
    assert all(base64.b64decode(table) in content for table in javascript.run(BASE64 + code))


LETTERS = [chr(code) for code in range(1, 0x2FFFF) if unicodedata.category(chr(code)) not in {"Cs", "Cn", "Co"}]
PIECES = [
    *(
        "a",
        "red",
        "Circle",
        "SQUARE",
        "left of",
        "don't",
        "I'M",
        "they'Ll",
        "''",
        "'s",
        "42",
        "x1",
        "1234",
        "the sea,",
        ",",
        ", ,",
    ),
    *(" ", "  ", "\t", "\n", "\u00a0", "\u0085", "\u2003", "\ufeff", "\x1f", "\x00", "<|endoftext|>", "<|startoftext|>"),
    *("<|ENDOFTEXT|>", "<|endoftext", "|>", "<cat>", "<Cat>", "<cat>_1", "<cat>s", "<dog>", "_1", "constructor", "toString"),
    *("İstanbul", "ΣΑΣ", "\u017ftraße", "ﬁ", "e\u0301", "\u212b", "\u1e9b\u0323", "한국", "日本語", "नमस्ते", "١٢", "½", "Ⅷ"),
    *("👩\u200d👩\u200d👧", "🇩🇪", "\U0001d54f", "ǅ"),
    *("(", ")", "[", "]", "((", "))", ":1.3)", "(red:1.5)", ":.5)", ":-2)", "\\(", "\\)", "\\", "|", ":"),
    *("BREAK", "xBREAK", "a BREAK  b", "AND"),
]
SPACES = re.compile(r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")


def texts(count, seed):
    chosen = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(count):
        pieces = [chosen.choice(PIECES) if chosen.random() < 0.8 else chosen.choice(LETTERS) for _ in range(chosen.randrange(40))]
        yield chosen.choice(["", " "]).join(pieces)


def normalized(text):
    """As CLIP reads a text."""
    return "".join(letter.lower() for letter in SPACES.sub(" ", unicodedata.normalize("NFC", text)))


def outcome(tokenizer, text):
    """What Python makes of a text; None where it refuses it."""
    try:
        return tokenizer.encode([text])
    except UnsupportedError:
        return None


def template():
    ids = {"<|startoftext|>": 644, "<|endoftext|>": 645}
    single = [{"SpecialToken": {"id": token, "type_id": 0}} for token in ids]
    tokens = {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in ids.items()}
    single.insert(1, {"Sequence": {"id": "A", "type_id": 0}})
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": tokens}


@pytest.mark.parametrize(
    ("content", "entry", "count"),
    [
        (javascript.clip_json(), {"length": 77}, 3000),
        (javascript.clip_json("<cat>", "<cat>_1", "<cat>_2", "<dog>"), {"length": 20}, 1000),
        (javascript.clip_json(post_processor=template()), {"length": 60, "chunks": 3}, 1000),
        (javascript.clip_json("<cat>", "<cat>_1"), {"length": 60, "chunks": 3, "weights": "w", "syntax": "a1111"}, 3000),
    ],
    ids=["CLIP", "words of several vectors", "chunks", "weights"],
)
def test_ids_masks_and_weights_are_python_s(tmp_path, content, entry, count):
    read = Tokenizer(file="t.json", feeds="ids", **entry)
    (tmp_path / "t.json").write_text(json.dumps(content), encoding="utf-8")
    python, given = TextTokenizer.of(tmp_path / "t.json", read), list(texts(count, seed=count))
    code = """
    const made = new tokenizer.TextTokenizer(content, entry);
    return given.map((text) => { try { return made.encode(text); } catch (error) { return error.message; } });
    """
    found = javascript.run(code, content=content, entry=read.model_dump(mode="json"), given=given)
    read_in_part = 0
    for text, ours in zip(given, found, strict=True):
        expected = outcome(python, text)
        assert (expected is None) == isinstance(ours, str), f"{text!r}: {ours}"
        if expected is None:
            continue
        ids, mask, (unread,), weights, _ = expected
        assert (ours["ids"], ours["mask"]) == (ids[0].tolist(), mask[0].tolist()), repr(text)
        assert np.array_equal(np.array(ours["weights"], np.float32), weights[0]), repr(text)
        rest, said = normalized(unread).strip(), ours["unread"].strip()
        assert rest.endswith(said), repr(text)
        assert len(rest) - len(said) <= 1, repr(text)  # where one letter became two, such as İ, Python does not cut between
        read_in_part += bool(unread)
    assert read_in_part > count // 50


def test_what_is_not_read_is_said_in_the_prompt_s_words():
    entry = {"length": 6, "chunks": 1, "syntax": None}
    code = "return new tokenizer.TextTokenizer(content, entry).encode('a red circle, left of it').unread;"
    assert javascript.run(code, content=javascript.clip_json(), entry=entry) == "left of it"


def test_a_table_is_played_as_python_plays_it():
    """Draws in between, coefficients of 0, and a short row."""
    numbers = random.Random(1)  # noqa: S311 - no secret
    ops = [Draw()]
    for step in range(6):
        ops += [Draw()] if step % 3 == 2 else []
        row = [numbers.choice([0.0, numbers.gauss(0, 1)]) for _ in range(len(ops) - step % 2)]
        ops.append(Eval(t=900.0 - 100 * step, row=tuple(row)))
    ops.append(Emit(row=tuple(numbers.gauss(0, 1) for _ in ops)))
    provenance = TableProvenance(scheduler="Toy", config={}, library="none", steps=6, deviation=0)
    played = Table(provenance=provenance, ops=tuple(ops))
    times = []

    def denoise(latent, time):
        times.append(time)
        return latent * np.float32(0.75) - np.float32(time / 1000)

    expected = played.play(denoise, seeded([3], (1, 4, 4, 4), "numpy"))
    code = """
    const stream = new noise.Noise(3n); const times = []; const steps = [];
    const denoise = async (latent, t) => {
      times.push(t);
      return latent.map((x) => Math.fround(x * 0.75) - Math.fround(t / 1000));
    };
    const latent = await table.play(ops, denoise, () => stream.draw(64), async (step, total) => { steps.push([step, total]); });
    return { latent: base64(latent), times, steps };
    """
    ours = javascript.run(BASE64 + code, ops=[op.model_dump(mode="json") for op in ops])
    assert np.array_equal(floats(ours["latent"]), expected.ravel())
    assert ours["times"] == times
    assert ours["steps"] == [[step, 6] for step in range(1, 7)]


def test_a_ratio_of_norms_is_python_s():
    ops = [Draw(), Draw(), Scaled(row=(0.5, 2.0), over=(1.0,), under=(0.0, 3.0), power=2), Emit(row=(0.0, 0.0, 1.0))]
    provenance = TableProvenance(scheduler="Toy", config={}, library="none", steps=1, deviation=0)
    expected = Table(format=4, provenance=provenance, ops=tuple(ops)).play(None, seeded([3], (1, 4, 4, 4), "numpy"))
    code = """
    const stream = new noise.Noise(3n);
    return base64(await table.play(ops, null, () => stream.draw(64)));
    """
    ours = floats(javascript.run(BASE64 + code, ops=[op.model_dump(mode="json") for op in ops]))
    np.testing.assert_allclose(ours, expected.ravel(), rtol=3e-7)  # sums of squares are rounded in another order


@pytest.mark.parametrize(
    ("output", "says"), [("NaN", "Step 1 of 2 gave NaN or infinity"), ("-Infinity", "Step 1 of 2 gave NaN or infinity")]
)
def test_a_network_s_nonsense_is_told_with_its_step(output, says):
    ops = [{"op": "draw"}, *[{"op": "eval", "t": 1, "row": [1]}] * 2, {"op": "emit", "row": [1]}]
    code = f"""
    const denoise = async (latent) => latent.map(() => {output});
    return table.play(ops, denoise, () => new Float32Array(4)).catch((error) => error.message);
    """
    assert says in javascript.run(code, ops=ops)


def test_numbers_become_bytes_as_numpy_rounds_them():
    middles = (np.arange(256, dtype=np.float32) + np.float32(0.5)) / np.float32(255)
    numbers = np.concatenate([middles, np.nextafter(middles, 0), np.nextafter(middles, 1), [-0.5, 1.5, 0, 1]]).astype(np.float32)
    expected = np.asarray(picture(numbers.reshape(-1, 1, 1).repeat(3, 2), {}))[:, 0, 0]
    assert javascript.run("return numbers.map(Math.fround).map(pipeline.byte);", numbers=numbers.tolist()) == expected.tolist()


def test_a_png_holds_the_pixels_and_what_made_them():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    facts = {"prompt": "ein Stern ★ 星", "negative_prompt": "", "seed": "18446744073709551615"}
    code = """
    const blob = await png.encode(Uint8Array.from(pixels), 7, 5, facts);
    return base64(new Uint8Array(await blob.arrayBuffer()));
    """
    data = base64.b64decode(javascript.run(BASE64 + code, pixels=pixels.ravel().tolist(), facts=facts))
    with Image.open(io.BytesIO(data)) as opened:
        assert np.array_equal(np.asarray(opened), pixels)
        assert (opened.mode, opened.text) == ("RGB", facts)

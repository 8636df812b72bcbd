import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engines.errors import BundleError, UnsupportedError
from engines.samplers import Cancelled
from engines.samplers.table import Draw, Emit, Eval, GivenLatent, Handovers, Scaled, Starts, Table
from tests.engines import small

SHAPE = (2, 4, 3, 5)
NUMBERS = st.floats(-20, 20, allow_nan=False, width=32)


@st.composite
def tables(draw):
    ops = [Draw()]
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            ops.append(Draw())
        else:
            row = draw(st.lists(NUMBERS, max_size=len(ops)))
            ops.append(Eval(t=draw(st.floats(0, 1000)), row=row))
    ops.append(Emit(row=draw(st.lists(NUMBERS, max_size=len(ops)))))
    return Table(provenance=small.table().provenance, ops=ops)


def model(latent, t):
    return np.tanh(latent) + np.float32(t / 1000)


def dense(table, draw):
    """The table as a lower-triangular matrix product, in float64."""
    history = np.zeros((len(table.ops), *SHAPE))
    for index, op in enumerate(table.ops):
        row = np.zeros(len(table.ops))
        row[: len(getattr(op, "row", ()))] = getattr(op, "row", ())
        mixed = np.einsum("h,hbcyx->bcyx", row, history)
        if op.op == "emit":
            return mixed
        history[index] = draw() if op.op == "draw" else model(mixed.astype(np.float32), op.t)
    raise AssertionError


def draws(seed):
    generator = np.random.default_rng(seed)
    return lambda: generator.standard_normal(SHAPE, np.float32)


@given(tables())
def test_play_is_a_dense_matrix_product(table):
    played = table.play(model, draws(1))
    assert played.dtype == np.float32
    assert played.shape == SHAPE
    largest = max([1.0, *(abs(number) for op in table.ops for number in getattr(op, "row", ()))])
    np.testing.assert_allclose(played, dense(table, draws(1)), atol=2e-4 * largest, rtol=1e-3)


@given(tables())
def test_json_holds_every_bit(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("table") / "t.json"
    table.dump(path)
    assert Table.load(path) == table
    first = path.read_bytes()
    Table.load(path).dump(path)
    assert path.read_bytes() == first


def test_the_file_has_one_op_a_line(tmp_path):
    small.table(2).dump(tmp_path / "t.json")
    assert '    {"op": "eval", "t": 999.0, "row": [0.5]},\n' in (tmp_path / "t.json").read_text()


def test_inputs_are_neither_changed_nor_returned():
    noise = np.ones(SHAPE, np.float32)
    table = Table(provenance=small.table().provenance, ops=(Draw(), Emit(row=(1.0,))))
    played = table.play(model, lambda: noise)
    played += 1
    assert (noise == 1).all()


def test_a_buffer_that_is_used_again_is_no_trap():
    buffer, source, table = np.empty(SHAPE, np.float32), draws(2), small.table(4, draws=3)

    def reusing():
        buffer[:] = source()
        return buffer

    output = np.empty(SHAPE, np.float32)

    def reusing_model(latent, t):
        output[:] = model(latent, t)
        return output

    np.testing.assert_array_equal(table.play(reusing_model, reusing), table.play(model, draws(2)))


def test_every_step_is_told():
    seen, fed = [], []
    small.table(3).play(
        lambda latent, t: fed.append(latent.copy()) or model(latent, t),
        draws(0),
        lambda step: seen.append((step.index, step.total, step.latent.copy())),
    )
    assert [step[:2] for step in seen] == [(1, 3), (2, 3), (3, 3)]
    for step, latent in zip(seen, fed, strict=True):
        np.testing.assert_array_equal(step[2], latent)


def test_a_preview_is_made_of_what_the_model_saw_and_said():
    table = small.table(2)
    first, second = (op for op in table.ops if isinstance(op, Eval))
    table = table.model_copy(update={"ops": (Draw(), first, second.model_copy(update={"preview": (2.0, -0.5)}), table.ops[-1])})
    seen = []
    table.play(model, draws(0), seen.append)
    assert seen[0].preview is None
    latent = seen[1].latent
    np.testing.assert_allclose(seen[1].preview, 2 * latent - 0.5 * model(latent, second.t), rtol=1e-6)
    assert seen[1].preview.dtype == np.float32


def test_what_a_step_raises_ends_the_sampling():
    calls = []

    def enough(step):
        if step.index == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        small.table(5).play(lambda latent, t: calls.append(t) or model(latent, t), draws(0), enough)
    assert len(calls) == 2


def edit():
    """From a given latent: noised half and half, one step, and what a mask keeps of it."""
    ops = (
        Draw(),
        GivenLatent(name="image"),
        Eval(t=500, row=(0.5, 0.5), kept=(0.25, 0.75), preview=(1.0, 0.0)),
        Emit(row=(0.0, 0.5, 2.0), kept=(0.0, 1.0)),
    )
    return Table(provenance=small.table(1).provenance, ops=ops)


def test_a_given_latent_is_mixed_in():
    image, noise = np.full(SHAPE, 3, np.float32), draws(4)()
    played = edit().play(model, lambda: noise, given={"image": image})
    np.testing.assert_allclose(played, 0.5 * image + 2 * model(0.5 * noise + 0.5 * image, 500), rtol=1e-6)


def test_outside_of_the_mask_the_given_latent_is_kept():
    image, noise, seen = np.full(SHAPE, 3, np.float32), draws(4)(), []
    mask = np.zeros((1, 1, *SHAPE[2:]), bool)
    mask[..., :2] = True
    masked = edit().play(model, lambda: noise, seen.append, {"image": image}, mask)
    free = edit().play(model, lambda: noise, given={"image": image})
    np.testing.assert_array_equal(masked[..., :2], free[..., :2])
    np.testing.assert_array_equal(masked[..., 2:], image[..., 2:])
    np.testing.assert_allclose(seen[0].latent[..., 2:], (0.25 * noise + 0.75 * image)[..., 2:], rtol=1e-6)
    np.testing.assert_array_equal(seen[0].preview, seen[0].latent)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({}, "starts from a given latent named 'image'"),
        ({"given": {"picture": np.zeros(SHAPE, np.float32)}}, "named 'image'"),
        ({"given": {"image": np.zeros((2, 4, 3, 4), np.float32)}}, r"the given image returned shape \[2, 4, 3, 4\]"),
    ],
)
def test_a_given_latent_that_is_missing_or_does_not_fit(wishes, message):
    with pytest.raises(UnsupportedError, match=message):
        edit().play(model, draws(0), **wishes)


def test_a_mask_needs_rows_for_what_is_kept():
    with pytest.raises(UnsupportedError, match="no rows for what a mask keeps"):
        small.table(2).play(model, draws(0), mask=np.ones((1, 1, 1, 1), bool))


def test_starts_are_tables_in_one_file(tmp_path):
    table, path = edit(), tmp_path / "2-image.json"
    later = (*table.ops[:2], Emit(row=(1.0,), kept=(1.0,)))
    provenance = table.provenance.model_copy(update={"steps": 2})
    starts = Starts(provenance=provenance, alone=small.table(2).ops, starts=(table.ops, later))
    starts.dump(path)
    assert '"preview": [1.0, 0.0]},\n' in path.read_text()
    for start, ops in enumerate((table.ops, later)):
        assert Table.load_start(path, start).ops == ops
    assert Table.load_start(path, 0, alone=True).ops == small.table(2).ops
    for start, alone in ((2, False), (-1, False), (1, True)):
        with pytest.raises(UnsupportedError, match="leaves out"):
            Table.load_start(path, start, alone=alone)
    content = json.loads(path.read_text())
    for damage in ({"starts": content["starts"][:1]}, {"alone": content["alone"][1:]}, {"more": 1}):
        path.write_text(json.dumps(content | damage))
        with pytest.raises(BundleError, match=r"2-image\.json"):
            Table.load_start(path, 0)


def test_starts_of_strengths_are_found_by_the_strength(tmp_path):
    table, path = edit(), tmp_path / "2-image.json"
    later = (*table.ops[:2], Emit(row=(1.0,), kept=(1.0,)))
    provenance = table.provenance.model_copy(update={"steps": 4})
    starts = Starts(provenance=provenance, alone=small.table(2).ops, starts=(table.ops, later), strengths=(0.08, 0.5))
    starts.dump(path)
    for strength, ops in ((0.08, table.ops), (0.499, table.ops), (0.5, later), (1.0, later)):
        assert Table.load_start(path, 0, strength=strength).ops == ops
    assert Table.load_start(path, 0, alone=True, strength=1.0).ops == small.table(2).ops
    told = r"strength 0\.07: 4 steps cannot be spread over so little\. Give at least 0\.08, or fewer steps"
    with pytest.raises(UnsupportedError, match=told):
        Table.load_start(path, 0, strength=0.07)
    content = json.loads(path.read_text())
    for strengths in ([0.5, 0.08], [0.08], [0.5, 0.5]):
        path.write_text(json.dumps(content | {"strengths": strengths}))
        with pytest.raises(BundleError, match="a start of each strength, in ascending order"):
            Table.load_start(path, 0)


def test_half_precision_outputs_are_mixed_in_float32():
    played = small.table(2).play(lambda latent, t: model(latent, t).astype(np.float16), draws(0))
    assert played.dtype == np.float32


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_denoiser_is_named_with_its_step(bad):
    with pytest.raises(UnsupportedError, match=r"step 2 of 3 \(t = 599\): the denoiser returned NaN or infinity.*fp16"):
        small.table(3).play(lambda latent, t: latent * (bad if t < 600 else 1), draws(0))


def test_another_shape_is_named():
    with pytest.raises(UnsupportedError, match=r"step 1 of 2 .*shape \[2, 4, 3\]; the latent has \[2, 4, 3, 5\]"):
        small.table(2).play(lambda latent, _: latent[..., 0], draws(0))
    sizes = iter([3, 4])
    with pytest.raises(UnsupportedError, match="draw returned shape"):
        small.table(2, draws=2).play(model, lambda: np.zeros((1, 1, 1, next(sizes)), np.float32))


def test_numbers_that_overflow_are_found_by_the_check():
    table = Table(provenance=small.table().provenance, ops=(Draw(), Eval(t=1, row=(1e300,)), Emit(row=(1,))))
    with pytest.raises(UnsupportedError, match="step 1 of 1"):
        table.play(lambda latent, _: latent, draws(0))


@pytest.mark.parametrize(
    "ops",
    [
        [],
        [Draw()],
        [Emit(row=())],
        [Eval(t=1, row=()), Emit(row=())],
        [Draw(), Emit(row=(1,)), Emit(row=(1,))],
        [Draw(), Emit(row=(1,)), Draw()],
        [Draw(), Emit(row=(1, 1))],
        [Draw(), Eval(t=1, row=(1, 1)), Emit(row=(1,))],
        [GivenLatent(name="image"), Emit(row=(1,))],
        [Draw(), Scaled(row=(1,), over=(1, 1), under=(1,), power=1), Emit(row=(1,))],
        [Draw(), GivenLatent(name="image"), Scaled(row=(1,), over=(1,), under=(1,), power=1), Emit(row=(1,))],
        [Draw(), Eval(t=1, row=(1,), kept=(1, 1)), Emit(row=(1,), kept=(1,))],
        [Draw(), Eval(t=1, row=(1,), kept=(1,)), Emit(row=(1,))],
    ],
)
def test_a_table_that_is_no_sampler_is_refused(ops):
    with pytest.raises(ValidationError):
        Table(provenance=small.table().provenance, ops=ops)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("ops", 1, "row", 0), float("nan")),
        (("ops", 1, "t"), float("inf")),
        (("ops", 1, "preview"), [1.0]),
        (("ops", 1, "preview"), [1.0, float("nan")]),
        (("ops", 1, "kept"), [1.0]),
        (("ops", 1, "row"), [1, 2, 3]),
        (("ops", 1, "row"), "11"),
        (("ops", 0, "op"), "import"),
        (("ops", 0, "more"), 1),
        (("format",), 5),
        (("ops", 1, "guided"), -1.0),
        (("provenance", "deviation"), -1),
    ],
)
def test_a_damaged_file_is_a_bundle_error(tmp_path, path, value):
    content = json.loads(small.table(2).model_dump_json())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"t\.json"):
        Table.load(tmp_path / "t.json")


def test_a_table_of_the_first_format_is_read(tmp_path):
    content = json.loads(small.table(2).model_dump_json(exclude_none=True)) | {"format": 1}
    (tmp_path / "t.json").write_text(json.dumps(content))
    assert Table.load(tmp_path / "t.json").ops == small.table(2).ops


def test_a_missing_file_is_a_bundle_error(tmp_path):
    with pytest.raises(BundleError, match="missing"):
        Table.load(tmp_path / "t.json")


def test_a_run_that_stops_and_one_that_goes_on_are_the_whole(tmp_path):
    small.handovers(4).dump(tmp_path / "h.json")
    assert Handovers.read(tmp_path / "h.json", 2**20) == small.handovers(4)
    whole = Table(format=4, provenance=small.table().provenance, ops=small.handovers(4).whole).play(model, draws(3))
    for share, taken in ((0.3, 1), (0.5, 2), (0.95, 3)):  # times 999, 599, 199 and -201 of 1000
        first, last = (Table.load_between(tmp_path / "h.json", *between) for between in ((None, share), (share, None)))
        assert [sum(op.op == "eval" for op in table.ops) for table in (first, last)] == [taken, 4 - taken]
        assert last.ops[0] == GivenLatent(name="image")
        left = first.play(model, draws(3))
        np.testing.assert_allclose(last.play(model, lambda: 1 / 0, given={"image": left}), whole, atol=1e-6)
    both = Table.load_between(tmp_path / "h.json", 0.3, 0.9)
    assert [op.t for op in both.ops if op.op == "eval"] == [599.0, 199.0]


def test_what_leaves_no_step_is_told(tmp_path):
    table = small.handovers(2)
    table.dump(tmp_path / "h.json")
    with pytest.raises(UnsupportedError, match=r"denoising_start 0.9 leaves no step. The last one begins before 0.401"):
        Table.load_between(tmp_path / "h.json", 0.9, None)
    with pytest.raises(UnsupportedError, match=r"denoising_end 0.0004 takes no step. The first one is at 0.001"):
        Table.load_between(tmp_path / "h.json", None, 0.0004)


@pytest.mark.parametrize("damage", ["own", "times"])
def test_tables_that_do_not_say_where_they_stop_are_damaged(tmp_path, damage):
    small.handovers(2).dump(tmp_path / "h.json")
    content = json.loads((tmp_path / "h.json").read_text())
    if damage == "own":
        del content["starts"]["1"][1]["own"]
    else:
        content["times"][1] = 3.0
    (tmp_path / "h.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="must evaluate at all times after them"):
        Table.load_between(tmp_path / "h.json", 0.3, None)


def test_only_a_table_of_format_4_begins_without_noise():
    ops = (GivenLatent(name="image"), Emit(row=(1.0,)))
    with pytest.raises(ValidationError, match="must begin with draw and end"):
        Table(provenance=small.table().provenance, ops=ops)
    assert Table(format=4, provenance=small.table().provenance, ops=ops).ops == ops


@pytest.mark.parametrize("power", [1, 2])
def test_what_is_scaled_is_so_by_each_picture_s_own_norms(tmp_path, power):
    """Which a picture beside another does not change."""
    ops = (Draw(), Draw(), Scaled(row=(0, 3), over=(2,), under=(0, 1), power=power), Emit(row=(1, 0, 1)))
    Table(format=4, provenance=small.table().provenance, ops=ops).dump(tmp_path / "t.json")
    table = Table.load(tmp_path / "t.json")
    assert table.ops == ops
    first, second = (draws(3)() * np.float32([1, 5]).reshape(-1, 1, 1, 1) for _ in range(2))
    second[0] *= 7
    norms = [np.sqrt(np.square(2 * one.astype(np.float64)).sum(axis=(1, 2, 3))) for one in (first, second / 2)]
    wanted = first + 3 * second * ((norms[0] / norms[1]) ** power).reshape(-1, 1, 1, 1)
    taken = iter((first, second))
    played = table.play(model, lambda: next(taken))
    np.testing.assert_allclose(played, wanted, rtol=1e-5, atol=1e-5)
    alone = iter((first[:1], second[:1]))
    assert np.array_equal(table.play(model, lambda: next(alone)), played[:1])


def test_nothing_has_no_proportion():
    ops = (Draw(), Scaled(row=(1,), over=(1,), under=(0,), power=1), Eval(t=1, row=(0, 1)), Emit(row=(0, 1)))
    with pytest.raises(UnsupportedError, match=r"step 1 of 1 .* returned NaN or infinity"):
        Table(format=4, provenance=small.table().provenance, ops=ops).play(lambda latent, _: latent, draws(0))

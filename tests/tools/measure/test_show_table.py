"""Every op of a table is shown, those that start from an image among them."""

from click.testing import CliRunner

from engines.sampler_ops import Draw, Emit, Eval, GivenLatent, Scaled
from engines.samplers.table import Table, TableProvenance
from tools.measure import show_table

OPS = (Draw(), GivenLatent(name="image"), Eval(t=500.0, row=(1.0, 0.5)), Emit(row=(0.0, 0.0, 1.0)))


def test_every_op_has_its_line():
    assert [show_table.line(op, 2).split()[0] for op in OPS] == ["draw", "given", "eval", "emit"]
    assert show_table.line(Scaled(row=(0.0, 1.0), over=(1.0,), under=(1.0,), power=2), 2).split()[:2] == ["scaled", "^2"]
    assert show_table.line(None, 2) == ""


def test_what_differs_between_ops():
    assert [show_table.difference(op, op) for op in OPS] == [""] * 4
    assert show_table.difference(OPS[0], OPS[1]) == "another op"
    assert show_table.difference(OPS[1], GivenLatent(name="mask")) == "another latent"
    assert "up to 5.0e-01" in show_table.difference(OPS[2], Eval(t=500.0, row=(1.0, 1.0)))


def test_a_table_that_starts_from_an_image_is_printed(tmp_path):
    provenance = TableProvenance(scheduler="DDIMScheduler", config={}, library="diffusers", steps=1, deviation=0.0)
    (tmp_path / "table.json").write_text(Table(provenance=provenance, ops=OPS).model_dump_json())
    told = CliRunner().invoke(show_table.main, [str(tmp_path / "table.json"), "--against", str(tmp_path / "table.json")])
    assert told.exit_code == 0
    assert "given image" in told.output
    assert "None" not in told.output

"""The blame table: one line a part, stage and backend, the worst of its cases."""

from engines.bundle import Verdict
from exporter.parity import table


def verdict(part, stage, backend, db, note="", similar=None):
    values = {"relative_l2": 0.1, "psnr": db, **({} if similar is None else {"ssim": similar})}
    return Verdict(part=part, stage=stage, case="c", backend=backend, values=values, limit={"psnr": 30.0}, passed=True, note=note)


def test_the_table_has_a_line_for_each_backend_and_names_it():
    verdicts = [
        verdict("unet", "onnx → engine", "onnxruntime", 120.0, "onnxruntime"),
        verdict("end to end", "image", "onnxruntime", 110.0, similar=1.0),
        verdict("unet", "onnx → engine", "openvino", 46.0, "openvino, bf16 inside"),
        verdict("unet", "onnx → engine", "openvino", 47.0, "openvino, bf16 inside"),
        verdict("end to end", "image", "openvino", 45.0, similar=0.999),
    ]
    assert [(line.part, line.backend, line.values["psnr"]) for line in table.worst(verdicts)] == [
        ("unet", "onnxruntime", 120.0),
        ("unet", "openvino", 46.0),
        ("end to end", "onnxruntime", 110.0),
        ("end to end", "openvino", 45.0),
    ]
    drawn = table.table(verdicts)
    assert drawn.count("unet") == drawn.count("end to end") == 1
    assert "openvino; SSIM 0.9990" in drawn
    assert "openvino; openvino" not in drawn
    assert "onnxruntime" not in table.table([verdicts[1]])

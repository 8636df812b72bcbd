"""A row of the list of pipelines says its state in words."""

import pytest

from exporter.report import pipelines


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"state": "works", "psnr": 113.9, "guidance": "none"}, "works: 113.9 dB, guidance none"),
        ({"state": "works", "psnr": 113.9, "fp16": 60.1, "guidance": "none"}, "works: 113.9 dB, in fp16 60.1 dB, guidance none"),
        (
            {"state": "works", "psnr": 113.9, "fp16": "its graph …", "guidance": "none"},
            "works: 113.9 dB, not in fp16: its graph …, guidance none",
        ),
        (
            {"state": "works", "psnr": 113.9, "guidance": "embedded", "only": "a bundle for each size"},
            "works: 113.9 dB, guidance embedded, a bundle for each size",
        ),
        ({"state": "differs", "psnr": 30.0, "guidance": "none"}, "differs from diffusers: 30.0 dB, guidance none"),
        ({"state": "refused", "why": "its graph …"}, "refused: its graph …"),
    ],
)
def test_a_state_in_words(row, words):
    assert pipelines.state(row) == words


def test_the_shipped_rows_are_listed_with_their_tasks():
    rows = pipelines.rows()
    assert {row["task"] for row in rows} == {"text-to-image", "image-to-image", "inpainting", "beside the lists"}
    assert {(row["name"], row["pipeline"]) for row in rows} > {("flux", "FluxPipeline"), ("pixart-sigma", "PixArtSigmaPipeline")}

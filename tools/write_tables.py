"""Write the pages of docs/ that are made from the code: `python -m tools.write_tables`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import click

from engines.backends import installed
from exporter.models.sampler_compat import Pairing, pairings
from exporter.quantization import formats
from exporter.report import describe
from exporter.schedulers.convergence import STEPS, surveyed
from exporter.schedulers.trace import TOLERANCE

DOCS = Path(__file__).parent.parent / "docs"
_MADE = "<!-- Made by `python -m tools.write_tables`; change exporter/{} instead. -->\n"
_PAIRING = """\
# Which sampler belongs to which model

A distilled model was trained for one way of sampling. With another it draws noise or mush, without an error anywhere. So `build`
asks what the model was made for, refuses a pair that surely breaks (exit status 2, with the line in the recipe and what to write
instead), and notes in the bundle what is merely unusual.

What a model was made for is told, in this order, by

1. the recipe: `model.made_for: turbo`, for files that do not tell;
2. its LoRAs (`model.loras`): their file name, hub id, or the title in the file;
3. the model's own name: hub id, folder or architecture;
4. `_name_or_path` in `model_index.json` and in the configs of its components;
5. the network: `unet.time_cond_proj_dim` makes it a latent consistency model.

Nothing of that: any sampler suits the model, but LCMScheduler, which needs a latent consistency model.

`sampler: {force: true}` builds a refused pair all the same; the bundle's notes then name what was overridden.

"""
_RULES = """\
## Rules for every model

- `LCMScheduler` needs a network with a guidance input (`time_cond_proj_dim`), or an LCM LoRA.
- Of LoRAs that were distilled for a sampler, all must be for the same.
- `rescale_betas_zero_snr: true` needs `prediction_type: v_prediction` and `timestep_spacing: trailing`.
- A scheduler that has no `prediction_type` or no `rescale_betas_zero_snr` cannot stand in for one that sets it.
- Own `timesteps` replace the rule about spacing.

"""


def pairing_page() -> str:
    """Write `pairings.json` as a page."""
    rows = ["| `made_for` | what it is | schedulers | spacing | guidance | steps |", "|---|---|---|---|---|---|"]
    sections = []
    for kind, pairing in pairings().items():
        schedulers = ", ".join(pairing.schedulers or ["any"])
        cells = [f"`{kind}`", pairing.about, schedulers, pairing.spacing or "any", _guidance(pairing), _steps(pairing)]
        rows.append(f"| {' | '.join(cells)} |")
        known = ", ".join(f"`{name}`" for name in (*pairing.hub, *pairing.architectures))
        sources = "\n".join(f"- {source}" for source in pairing.sources)
        example = f"```yaml\nsampler: {{{_example(pairing)}}}\n```"
        sections.append(f"### {kind}\n\nKnown by name: {known}.\n\n{example}\n\nRead in:\n{sources}\n")
    table = "\n".join(rows)
    return f"{_MADE.format('pairings.json')}{_PAIRING}{table}\n\n{_RULES}## Kinds\n\n" + "\n".join(sections)


_SAMPLERS = """\
# Samplers

Every scheduler of diffusers, compiled into a table of coefficients and proved against the original; `t2iexport list samplers`
prints this from the library that is installed. Here: {library}, at its defaults but with clipping and thresholding off.

- **order**: measured. The slope of log error over log steps between {first} and {last} steps, on normal data, whose best denoiser
  and exact path are known; errors at the model's inputs, where there is still noise. – where there is none: the sampler draws
  noise, leads from pictures to noise, or does not say what its model's output means.
- **evaluations**: of the model per step, at eight steps, as the columns that follow.
- **largest**: coefficient of the table, in size; what a rounding error may grow by.
- **deviation**: of the table from the scheduler in the proof, as a share of the terms summed; {tolerance:.0e} is refused.

"""
_CHECKED = """

## What `check` covers

The table of every number of steps is played against the source pipeline's own trajectory and noise, with guidance as the recipe
says, and where it is classifier-free also without.

## Refused

"""


def sampler_page() -> str:
    """Write the survey of schedulers as a page."""
    about = {"library": f"diffusers {installed('compile', 'diffusers')}", "first": STEPS[0], "last": STEPS[-1]}
    lines = ["| scheduler | order | evaluations | noise | largest | deviation |", "|---|---|---|---|---|---|"]
    for row, order in surveyed():
        if not row.reason:
            measured = "–" if order is None else f"{order:.1f}"
            noise, figures = "drawn" if row.stochastic else "", f"{row.largest:.3g} | {row.deviation:.0e}"
            lines.append(f"| {row.scheduler} | {measured} | {row.evaluations:.3g} | {noise} | {figures} |")
    refused = [f"- {row['scheduler']}: {row['why']}" for row in describe.samplers()["refused"]]
    head = _MADE.format("sampler.py") + _SAMPLERS.format(**about, tolerance=TOLERANCE)
    return head + "\n".join(lines) + _CHECKED + "\n".join(refused) + "\n"


def _guidance(pairing: Pairing) -> str:
    guidance = pairing.guidance
    if guidance.mode == "none" and guidance.most == 1:
        return "none"
    return guidance.mode if guidance.most is None else f"{guidance.mode}, or a scale of at most {guidance.most:g}"


def _steps(pairing: Pairing) -> str:
    if pairing.steps is None:
        return "any"
    least, most = pairing.steps.least, pairing.steps.most
    return f"{least} to {most}" if most > least else f"{least}, no other"


def _example(pairing: Pairing) -> str:
    return pairing.write.partition(" (")[0]


_FORMATS = """\
# Formats of numbers, and which target takes which

`t2iexport list formats` prints this. A recipe asks for one in a component's passes, `- quantize: {format: int8}`;
a target that refuses it ends the build before time is spent. Everything is
explicit, symmetric Q/DQ in the ONNX: weights per output channel (4 bits:
per block of up to 128), activations per tensor. [How and why](decisions/0017-quantization.md).

"""


def format_page() -> str:
    """Write the table of formats as a page."""
    lines = ["| format | what | weights | inputs of convolutions | of products | must win, unless told otherwise |"]
    lines.append("|---|---|---|---|---|---|")
    for name in formats.offered():
        form = formats.FORMATS[name]
        inputs = f"{form.conv or 'float'} | {form.product or 'float'}"
        lines.append(f"| `{name}` | {form.about} | {form.weights} | {inputs} | {form.gate} |")
    lines += ["", "| format | target | answer |", "|---|---|---|"]
    lines += [f"| `{row['format']}` | {row['target']} | {row['answer']} |" for row in formats.rows()]
    return _MADE.format("formats.py") + _FORMATS + "\n".join(lines) + "\n"


#: File in docs/ → what makes its text.
PAGES: Mapping[str, Callable[[], str]] = {"pairing.md": pairing_page, "samplers.md": sampler_page, "formats.md": format_page}


@click.command()
def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        click.echo(f"docs/{name}")


if __name__ == "__main__":
    main()

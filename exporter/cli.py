"""The command line: which verbs there are, and how an error ends. New knobs go into the recipe; `--set` is the one escape."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from engines import exits
from engines.disk import refusal
from engines.errors import MissingDependency, T2IError

#: Verb → where it is defined, and the first sentence of its help; its module is imported when it is run or asked for help.
VERBS = {
    "bench": ("exporter.verbs.measure", "Measure where an image's time goes, beside other tools."),
    "build": ("exporter.verbs.build", "Turn a recipe into a checked bundle."),
    "check": ("exporter.verbs.check", "Hold a bundle's engines to its source model."),
    "convert": ("exporter.verbs.deliver", "Export plain graphs in another tool's layout."),
    "debug": ("exporter.verbs.check", "Find the layer of a part that is out of limits."),
    "diff": ("exporter.verbs.measure", "Show two bundles side by side."),
    "distill": ("exporter.verbs.build", "Train what a recipe's passes ask for; build finds it."),
    "draw": ("engines.picture_set.command", "Draw a file of prompts, in shards; begun ones go on."),
    "generate": ("engines.__main__", "Make images of prompts, with what made them inside."),
    "inspect": ("exporter.verbs.describe", "Describe a bundle, or a recipe before anything is built."),
    "list": ("exporter.verbs.describe", "List what a recipe may name."),
    "optimize-noise": ("exporter.verbs.noise", "Find the noise whose image a reward likes best."),
    "rebuild": ("exporter.verbs.deliver", "Build a bundle's engines again on this machine."),
    "reward": ("exporter.verbs.build", "Make what `generate --best-of` chooses by."),
    "serve": ("engines.serve.command", "Serve bundles over HTTP."),
    "sweep": ("exporter.verbs.measure", "Build and measure a sweep's points, and write a report."),
    "triton": ("exporter.verbs.deliver", "Write a model repository for NVIDIA's Triton."),
    "web": ("exporter.verbs.deliver", "Write a static site that draws in its visitors' browsers."),
}
#: What the extra [compile] installs, by the name that is imported.
_COMPILE = {"diffusers", "huggingface_hub", "onnx", "onnx_ir", "onnxscript", "ruamel", "safetensors", "torch"}
_COMPILE |= {"transformers", "accelerate", "polygraphy"}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in VERBS:
            return None
        found = vars(import_module(VERBS[cmd_name][0])).values()
        return next(each for each in found if isinstance(each, click.Command) and each.name == cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        room = formatter.width - 6 - max(map(len, VERBS))
        rows = [(name, click.Command(name, help=does).get_short_help_str(room)) for name, (_, does) in VERBS.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="t2iexport")
def verbs() -> None:
    """Compile text-to-image diffusion models into checked bundles that run without torch."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one verb, and exit with its status."""
    said = " ".join(("t2iexport", *(sys.argv[1:] if arguments is None else arguments)))
    exits.run(verbs, "t2iexport", arguments, lambda error: known(error) or _of_a_library(error, said))


def known(error: Exception) -> T2IError | None:
    """What a user can do about an error that is not of this package's tree; None for a bug."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _COMPILE:
        return MissingDependency(str(error.name), "compile")
    if type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator: can't allocate memory" in str(error):  # torch's
        return refusal(MemoryError())
    return refusal(error)


def _of_a_library(error: Exception, doing: str) -> T2IError | None:
    """The sentence for what a library raised outside of every stage, such as while a bundle is checked; None for a bug."""
    from exporter.stages.vendors import sentence

    return sentence(error, doing)

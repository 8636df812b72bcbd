"""What `inspect`, `list` and `--dry-run` know, as plain data: facts, and tables as lists of rows."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import plugins
from engines.bundle import Bundle, PartEntry
from engines.guidance import USUAL, Guidance
from exporter.models import sampler_compat
from exporter.parity.metrics import label, shown
from exporter.parity.table import limits
from exporter.quantization import formats
from exporter.recipe import shipped
from exporter.report import pipelines

if TYPE_CHECKING:
    from exporter.families import Family
    from exporter.recipe.schema import Recipe, SamplerOptions
    from exporter.reference.cost import Size
    from exporter.stages.plan import Plan
    from exporter.stages.store import Store

Row = Mapping[str, Any]
#: What `list` can list, besides the kinds of plugins that a recipe names.
LISTS = ("families", "passes", "formats", "backends", "samplers", "recipes", "architectures", "pipelines")
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "mixed": 2, "auto": 4}
#: Peak memory of exporting and building one part, in sizes of its weights: 3.6 for KOALA-700M's UNet, 3.8 for SDXL's, in fp16.
_PEAK = 4
#: What the libraries take before any weight is loaded, in bytes.
_LIBRARIES = 1.5e9


def bundle(path: Path) -> dict[str, Any]:
    """Describe a bundle by its manifest; engines are not opened.

    Raises:
        BundleError: it is damaged or too new.

    """
    manifest = Bundle.open(path).manifest
    sizes = {name: file.size for name, file in manifest.files.items()}
    measured = list(dict.fromkeys(name for verdict in manifest.verdicts for name in verdict.values))
    return {
        "bundle": manifest.name,
        "source": ", ".join(f"{key} {value}" for key, value in manifest.source.items()),
        "guidance": _guidance(manifest.guidance),
        "default": f"{manifest.defaults.width} x {manifest.defaults.height} px, {manifest.defaults.steps} steps",
        "size": f"{_megabytes(sum(sizes.values()))} MB",
        "versions": _pairs(manifest.versions),
        "parts": [_part(name, part, sizes) for name, part in manifest.parts.items()],
        "engines": [
            {
                "part": name,
                "backend": backend,
                "version": engine.version,
                "opset": engine.opset,
                "MB": _megabytes(sum(sizes[file] for file in engine.files)),
                "options": _pairs(engine.options),
            }
            for name, part in manifest.parts.items()
            for backend, engine in part.engines.items()
        ],
        "inputs": [
            {
                "input": name,
                "kind": entry.kind,
                "shape": _list(entry.shape),
                "default": "must be given" if entry.default is None else f"{entry.default:g}",
                "about": entry.about,
            }
            for name, entry in manifest.inputs.items()
        ],
        "samplers": [
            {"steps": entry.steps, "kind": entry.kind, "size": f"{entry.width} x {entry.height} px" if entry.height else "any"}
            for entry in manifest.samplers
        ],
        "verdicts": [
            {
                "part": verdict.part,
                "stage": verdict.stage,
                "backend": verdict.backend or "",
                **{label(name): shown(name, verdict.values[name]) if name in verdict.values else "" for name in measured},
                "limit": limits(verdict.limit),
                "verdict": "ok" if verdict.passed else "FAIL",
            }
            for verdict in manifest.verdicts
        ],
        "notes": list(manifest.notes),
    }


def recipe(chosen: Recipe, store: Store) -> dict[str, Any]:
    """Describe what a recipe would build: size of every part, plan, and an estimate. Downloads no weights.

    Raises:
        RecipeError, UnsupportedError: it cannot be built.

    """
    from exporter.stages.plan import Plan  # noqa: PLC0415 - torch

    outline, note = _without_weights(chosen)
    plan = _decided(Plan(outline), store)
    for steps in plan.recipe.sampler.steps:
        plan.table(steps)
    sizes = _counted(plan.passes.expected_family)
    shapes, sampler, adapter = chosen.shapes, chosen.sampler, chosen.model.ip_adapter
    return {
        "recipe": chosen.name,
        "family": type(plan.family).__module__.rpartition(".")[2],
        "source": f"{chosen.model.source} ({chosen.model.weights})",
        "sampler": f"{sampler.scheduler or 'as the model says'}, {_list(sampler.steps)} steps",
        "made for": _made_for(plan),
        "LoRAs": _list(f"{change.source} × {change.scale:g}" for change in chosen.model.loras),
        **({"IP-Adapter": f"{adapter.source} {adapter.weight_name or ''}".strip()} if adapter else {}),
        "guidance": _asked_guidance(sampler),
        "height": f"{_list(shapes.height)} px",
        "width": f"{_list(shapes.width)} px",
        "batch": _list(shapes.batch),
        "targets": ", ".join(name for target in chosen.targets for name in target),
        **estimate(plan, sizes),
        **({"note": note} if note else {}),
        **(
            {"sizes": f"without the passes of {_list(size_unknown)}, which choose when they run"}
            if (size_unknown := plan.passes.size_unknown)
            else {}
        ),
        "parts": [
            {
                "part": name,
                "parameters": f"{size.parameters:,}",
                "G multiply-adds": f"{size.multiply_adds / 1e9:,.2f}",
                "precision": _precision(plan, name),
                "passes": _list(plan.passes.summaries(name)) if plan.passes.summaries(name) else "",
            }
            for name, size in sizes.items()
        ],
        "notes": list(plan.notes),
        "stages": [] if note else stages(plan, store),
    }


def _asked_guidance(sampler: SamplerOptions) -> str:
    guidance = sampler.guidance
    words = [guidance.mode] if guidance.scale is None else [guidance.mode, f"{guidance.scale}"]
    words += [f"rescaled by {guidance.rescale:g}"] if guidance.rescale else []
    words += [f"with perturbed attention {guidance.pag.scale:g} in {', '.join(guidance.pag.layers)}"] if guidance.pag else []
    return " ".join(words)


def dry_run(plan: Plan, store: Store) -> dict[str, Any]:
    """Describe what a build would do, and what it would need."""
    plan = _decided(plan, store)
    for steps in plan.recipe.sampler.steps:
        plan.table(steps)  # a sampler that cannot be is a problem here too
    listed = stages(plan, store)
    reused = f"{sum(not row['why'] for row in listed)} of {len(listed)} stages"
    needs = estimate(plan, _counted(plan.passes.expected_family))
    return {"reused": reused, **needs, "notes": list(plan.notes), "stages": listed}


def _decided(plan: Plan, store: Store) -> Plan:
    """The plan of a schedule of step caching that was found before; of one that is yet to be searched, what there is."""
    from exporter.stages.stage import Results  # noqa: PLC0415 - with the plan, what a bundle is described without

    return plan if plan.search and store.why(plan.search.key) else plan.decided(Results(store))


def stages(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """One row a stage: whether it is in the cache, and if not, why it must be made."""
    rows = []
    for stage in plan.stages:
        why = store.why(stage.key)
        rows.append({"stage": stage.verb, "subject": stage.subject, "cached": "no" if why else "yes", "why": why})
    return rows


def estimate(plan: Plan, sizes: Mapping[str, Size]) -> dict[str, str]:
    """Memory and disk that a build takes when nothing is in the cache, roughly; decimal gigabytes."""
    weights = {name: size.parameters * _BYTES[_precision(plan, name)] for name, size in sizes.items()}
    # What passes remake is loaded whole first, in fp32, and what they make is kept beside.
    source = _counted(plan.family) if plan.passes.remade else sizes
    remaking = 4 * sum(source[name].parameters for name in plan.passes.remade)
    recording = remaking if plan.recipe.checks.skip else 4 * sum(size.parameters for size in source.values())
    kept = 4 * sum(sizes[name].parameters for name in plan.passes.remade)
    memory = _LIBRARIES + max(recording, *(_PEAK * size for size in weights.values()))
    # A graph per operator set, and an engine per target that builds one; and the bundle's own files, unless they are clones.
    built = {name: [backend for backend in plan.targets[name].values() if not backend.runs_onnx] for name in weights}
    copies = {name: len(plan.opsets(name)) + len(built[name]) for name in weights}
    made = sum(copies[name] * size for name, size in weights.items())
    return {
        "memory": f"about {memory / 1e9:.1f} GB",
        "disk": f"about {(made + kept) / 1e9:.2f} GB, and {made / 1e9:.2f} GB more where files cannot share blocks (ext4)",
    }


def listing(kind: str) -> list[dict[str, str]]:
    """Names and one-line descriptions of one kind of thing; imports no plugin."""
    if kind == "architectures":
        from exporter.models import architectures  # noqa: PLC0415

        return [{"name": name, "what": str(architectures.read(name).get("about", ""))} for name in architectures.names()]
    if kind == "formats":
        return formats.rows()
    if kind == "pipelines":
        return pipelines.rows()
    if kind == "recipes":
        return [{"name": name, "what": _headline(file)} for name, file in shipped.recipes().items()]
    return [{"name": name, "what": _docstring(plugins.source(kind, name))} for name in plugins.names(kind)]


def _counted(family: Family) -> Mapping[str, Size]:
    from exporter.reference.cost import count  # noqa: PLC0415 - torch

    return count(family)


def samplers() -> dict[str, list[dict[str, str]]]:
    """Compile every scheduler of diffusers: what is known of those that do, why the others do not, and what plays them."""
    from exporter.schedulers.convergence import surveyed  # noqa: PLC0415 - torch

    rows = surveyed()
    return {
        "samplers": [
            {
                "scheduler": row.scheduler,
                "order": "–" if order is None else f"{order:.1f}",
                "evaluations per step": f"{row.evaluations:.3g}",
                "noise": "drawn" if row.stochastic else "",
                "largest coefficient": f"{row.largest:.3g}",
                "deviation": f"{row.deviation:.0e}",
                "with": ", ".join(f"{key}: {json.dumps(value)}" for key, value in row.config.items()),
            }
            for row, order in rows
            if not row.reason
        ],
        "refused": [{"scheduler": row.scheduler, "why": row.reason} for row, _ in rows if row.reason],
        "kinds": listing("samplers"),
    }


def _without_weights(chosen: Recipe) -> tuple[Recipe, str]:
    """The recipe itself where its source is at hand, else one with the same networks and made-up weights, and a note."""
    from exporter.models import architectures  # noqa: PLC0415

    model = chosen.model
    adapter = model.ip_adapter.source if model.ip_adapter else None

    def here(source: str) -> bool:
        return any((place / source).exists() for place in (chosen.root, Path()))

    chosen, lacking = _without_swapped(chosen, here)
    if model.weights == "random" or all(
        map(here, [model.source, *filter(None, [model.vae, adapter]), *(change.source for change in model.loras)])
    ):
        return chosen, lacking
    same = architectures.of_hub(model.source)
    told = f"from the named architecture {same}" if same else "from the hub's configuration files"
    outline = model.model_copy(
        update={
            "weights": "random",
            "source": same or model.source,
            "vae": None,
            "variant": None,
            "loras": (),  # they change no size; what they say of the sampler is kept
            "ip_adapter": None,
            "made_for": model.made_for or sampler_compat.made_by_loras(chosen).kind or None,
        }
    )
    told += ", without the IP-Adapter and its image encoder" if adapter else ""
    note = f"sizes are {told}; the plan is known when the weights are here: t2iexport build --dry-run"
    return chosen.model_copy(update={"model": outline}), note


def _without_swapped(chosen: Recipe, here: Callable[[str], bool]) -> tuple[Recipe, str]:
    """The recipe with made-up weights in the networks that passes take from the hub, and a note where there are any."""
    components, far = dict(chosen.components), []
    for part, component in chosen.components.items():
        passes = []
        for step in component.passes:
            options = dict(step.get("swap", {}))
            if options.get("source") and options.get("weights") != "random" and not here(options["source"]):
                far.append(options["source"])
                passes.append({"swap": options | {"weights": "random"}})
            else:
                passes.append(step)
        components[part] = component.model_copy(update={"passes": tuple(passes)})
    if not far:
        return chosen, ""
    note = f"of {_list(far)} the config alone was read; the plan is known when the weights are here: t2iexport build --dry-run"
    return chosen.model_copy(update={"components": components}), note


def _part(name: str, part: PartEntry, sizes: Mapping[str, int]) -> Row:
    graphs = part.onnx.items()
    return {
        "part": name,
        "role": part.role,
        "parameters": f"{part.parameters:,}",
        "precision": part.precision,
        "passes": ", ".join(part.passes),
        "opset": ", ".join(opset for opset, _ in graphs),
        "nodes": ", ".join(f"{graph.nodes_exported} → {graph.nodes}" for _, graph in graphs),
        "ONNX MB": _megabytes(sum(sizes[file] for _, graph in graphs for file in graph.files)),
    }


def _made_for(plan: Plan) -> str:
    made = plan.pairing.made
    return f"{made.kind}: {sampler_compat.pairings()[made.kind].about}; {made.told_by} says so" if made.kind else "any sampler"


def _precision(plan: Plan, name: str) -> str:
    return plan.recipe.component(name).precision


def _headline(file: Path) -> str:
    comments = (line[1:].strip() for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    text = " ".join(line for line in comments if not line.startswith("yaml-language-server"))
    return text if ". " not in text else f"{text.partition('. ')[0]}."


def _docstring(file: Path | None) -> str:
    if file is None or file.suffix != ".py":
        return "from another package"
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.2f}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_list(value) if isinstance(value, list | tuple) else value}" for key, value in values.items())


def _guidance(guidance: Guidance) -> str:
    """Mode and default of the usual scale, then the others by name."""
    usual = " ".join(str(value) for value in (guidance.mode, guidance.scale) if value is not None)
    return _list([usual, *(f"{scale.name} {scale.default:g}" for scale in guidance.scales if scale.name != USUAL)])


def _list(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values)) or "none"

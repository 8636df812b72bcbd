"""What `t2iexport debug` prints: the blame table of one part, its layers, and the one that is to blame."""

from __future__ import annotations

from exporter.parity.debug import Fault, LayerReport
from exporter.parity.metrics import shown
from exporter.parity.table import table
from exporter.recipe.limits import STAGES

#: Layers that are printed around the first one that is out of limits.
_BEFORE, _AFTER = 6, 3
#: Nodes of the smallest graph that are named.
_NAMED = 6


def text(report: LayerReport) -> str:
    """Several lines, each with its own meaning."""
    lines = [table(report.verdicts), ""]
    lines += [f"graph: {told}" for told in report.lint] or ["graph: valid ONNX, shapes agree, every weight is read and finite"]
    if report.fault is None:
        return "\n".join([*lines, "", "Every line is within its limits: there is no layer to blame."])
    return "\n".join([*lines, "", *_fault(report.fault)])


def _fault(fault: Fault) -> list[str]:
    line, found = fault.line, fault.found
    where = f"{line.part}, {line.stage}{f' of {line.backend}' if line.backend else ''}, {line.case}"
    if fault.stale:
        score = shown("psnr", fault.alone)
        return [
            f"{where}: the engine in the bundle is wrong, and one built here of the same graph is right: {score}.",
            "No layer is to blame. It was built of another graph, by another version, or on another machine: t2iexport rebuild.",
        ]
    names = list(found.scores)
    place = names.index(found.name) if found.name in names else len(names) - 1
    lines = [f"{where}: layer by layer, limit {fault.floor:g} dB"]
    for name in names[max(0, place - _BEFORE) : place + _AFTER + 1]:
        mark = "FAIL" if found.scores[name] < fault.floor else "ok"
        kinds = _kinds(fault, name)
        lines.append(f"  {shown('psnr', found.scores[name]):>10}  {mark:<5}{name}  {kinds}".rstrip())
    lines += ["", f"first value out of limits: {found.name}, made by {_kinds(fault, found.name)}"]
    lines.append(f"module of the source:      {fault.module or 'unknown: neither nodes nor weights name one'}")
    if found.hidden:
        lines.append("The fault is gone when the values in front of it are looked at: the engine makes it where it fuses them.")
    names = [f"{node.op_type} {node.name}" for node in fault.nodes]
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    if fault.alone < fault.floor:
        count = f"{len(names)} node{'s' if len(names) != 1 else ''}"
        lines.append(f"smallest graph showing it: {count}, {', '.join(names[:_NAMED])}{rest}: {shown('psnr', fault.alone)}")
    elif line.stage == STAGES["passes"]:
        lines.append("The graph does not show it in ONNX Runtime, which may compute a half-precision layer in float32.")
    else:
        lines.append("No part of the graph shows it when it is fed rightly: small errors of many layers add up.")
    return [*lines, "", "It is repeated by:", f"  {fault.command}"]


def _kinds(fault: Fault, name: str) -> str:
    """Operators that make a value, the last one last, and their module."""
    kinds = [node.op_type for node in fault.layers.nodes(name) if node.op_type not in {"Shape", "Size"}]
    module = fault.layers.module(name) if kinds else ""
    return " → ".join(kinds[-4:]) + (f" of {module}" if module else "")

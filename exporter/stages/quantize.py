"""A recipe's quantized parts in the plan: calibrate, quantize, an unquantized rival of every engine, and which is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import RecipeError
from exporter.models.checkpoint import network
from exporter.quantization import formats
from exporter.stages.keys import key_of
from exporter.stages.store import file_digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.manifest import Quantized as Entry
    from exporter.passes.quantize import Quantize
    from exporter.stages.passes import Done
    from exporter.stages.plan import Plan
    from exporter.stages.store import Key

    Row = tuple[str, str, Key, Callable[[Path, Done], None]]

#: The stage's file.
_CALIBRATION = "calibration.txt"


class Quantized:
    """The parts whose passes end in quantize.

    Attributes:
        of: part → the pass.

    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.of: Mapping[str, Quantize] = plan.passes.quantized

    def refuse(self) -> None:
        """Raise what no format, target or recording can give, before time is spent.

        Raises:
            RecipeError: the pass does not fit the rest of the recipe, or its calibration belongs to another model.
            UnsupportedError: a target does not take the format.

        """
        recipe = self._plan.recipe
        for name, step in self.of.items():
            where, component = self._where(name), recipe.components[name]
            targets = self._plan.targets[name]
            formats.refuse(step.format, targets)
            for backend in targets.values():
                backend.refuse(step.form.weights)
            if self._plan.wholes.steps:
                raise RecipeError(f"{where}: a fused pipeline joins unquantized graphs; leave it out, or write pipeline: stepped")
            if step.recorded and recipe.checks.skip:
                raise RecipeError(
                    f"{where}: {step.format} is calibrated on what the source does, so that is recorded; leave checks.skip out"
                )
            if step.fallback and {"mixed": "fp16"}.get(component.precision, component.precision) not in {step.fallback, "auto"}:
                raise RecipeError(
                    f"{where}.fallback: {step.fallback}, but unquantized the component is {component.precision}; write that"
                )
            self._given(name)

    def stages(self, name: str, opset: int, export: Key, recorded: Mapping[str, str], digest: str) -> Iterator[Row]:
        """Calibrate and quantize the graph of one operator set; nothing where the part is not quantized."""
        step = self.of.get(name)
        if step is None:
            return
        subject = f"{name}, opset {opset}"
        options = {**step.decides, "outputs": self._outputs(name)}
        inputs = {"export": str(export), "weights": digest} | (dict(recorded) if step.recorded else {})
        if step.calibration is not None:
            inputs["calibration"] = self._given(name)
        calibrate_key = key_of("calibrate", subject, options, inputs, (self._calibrate, type(step), type(self._plan.family)))
        yield "calibrate", subject, calibrate_key, lambda folder, done: self._calibrate(folder, name, opset, digest, done)
        inputs = {"export": str(export), "calibration": str(calibrate_key)}
        quantize_key = key_of("quantize", subject, {"block": step.block}, inputs, (self._quantize, type(step)))
        yield "quantize", subject, quantize_key, lambda folder, done: self._quantize(folder, name, opset, done)

    def rivals(self, name: str, opset: int, export: Key) -> Iterator[Row]:
        """Engines of the unquantized graph, to be smaller or quicker than."""
        for target, backend in self._plan.targets[name].items() if name in self.of else ():
            if backend.opset == opset:
                options, versions = backend.model_dump(mode="json"), {target: backend.version}
                makers, inputs = (self._rival, type(self._plan.family), type(backend)), {"export": str(export)}
                rival_key = key_of("engine", f"{name}, {target}, unquantized", options, inputs, makers, versions)
                make = lambda folder, done, target=target: self._rival(folder, name, target, done)  # noqa: E731
                yield "rival", f"{name}, {target}", rival_key, make

    def weighing(self, name: str, before: Mapping[tuple[str, str], Key]) -> Iterator[Row]:
        """Hold quantized against unquantized."""
        if step := self.of.get(name):
            from exporter.machine import environment  # noqa: PLC0415

            options = {"gate": step.gate, "fallback": step.fallback, "machine": environment().processor}
            options["limits"] = dict(self._plan.recipe.checks.limits)
            verbs = {"engine", "rival", "measure"}
            inputs = {f"{verb} {subject}": str(made) for (verb, subject), made in before.items() if verb in verbs}
            inputs = {told: digest for told, digest in inputs.items() if told.split(" ", 1)[1].partition(",")[0] == name}
            kinds = {type(backend) for backend in self._plan.targets[name].values()}
            makers = (self._weigh, type(step), type(self._plan.family), *kinds)
            weigh_key = key_of("weigh", name, options, inputs, makers)
            yield "weigh", name, weigh_key, lambda folder, done: self._weigh(folder, name, done)

    def graph(self, name: str, opset: int, done: Done) -> Path:
        """Folder of the graph that goes into the bundle."""
        verb = "quantize" if name in self.of and self.kept(name, done) else "export"
        return done[verb, f"{name}, opset {opset}"]

    def engine(self, name: str, target: str, done: Done) -> Path:
        """Folder of the engine that goes into the bundle."""
        return done["rival" if name in self.of and not self.kept(name, done) else "engine", f"{name}, {target}"]

    def kept(self, name: str, done: Done) -> bool:
        """Whether the quantized network is the better one."""
        return bool(self._weighed(name, done)["kept"])

    def notes(self, done: Done) -> list[str]:
        """What was decided, a sentence each."""
        notes = [note for name in self.of for note in self._weighed(name, done)["notes"]]
        lowered = [name for name, step in self.of.items() if step.rest != "none" and self.kept(name, done)]
        return notes + [self._stayed(name, done) for name in lowered]

    def entry(self, name: str, opset: int, done: Done, folder: Path) -> Entry | None:
        """What the manifest says of a part, with the calibration put into the bundle's folder; None where it is not quantized."""
        from engines.manifest import Quantized as Entry  # noqa: PLC0415
        from exporter.quantization.calibration import read  # noqa: PLC0415

        if name not in self.of or not self.kept(name, done):
            return None
        file = done["calibrate", f"{name}, opset {opset}"] / _CALIBRATION
        found, relative = read(file, name), f"calibration/{name}.json"
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / relative)
        facts = json.loads((done["quantize", f"{name}, opset {opset}"] / "facts.txt").read_text())
        return Entry(
            format=self.of[name].format,
            layers=facts["layers"],
            quantized=facts["layers"] - len(found.kept),
            kept=tuple(found.kept),
            calibration=relative,
        )

    def _stayed(self, name: str, done: Done) -> str:
        """How many of the layers that the format left alone have their weights in 8 bits."""
        from exporter.quantization.calibration import read  # noqa: PLC0415

        found = read(done["calibrate", f"{name}, opset {self._plan.opsets(name)[-1]}"] / _CALIBRATION, name)
        lowered = sum(layer in found.layers for layer in found.kept)
        return f"{name}: {lowered} of the {len(found.kept)} layers that stay have weights in 8 bits; the calibration says why"

    def _where(self, name: str) -> str:
        steps = self._plan.passes.of[name]
        index, step = next((index, step) for index, step in enumerate(steps) if steps[step].kind == "graph")
        return f"components.{name}.passes.{index}.{step}"

    def _outputs(self, name: str) -> bool:
        """Whether the int8 convolutions of a target write int8."""
        return any(backend.quantized_outputs for backend in self._plan.targets[name].values())

    def _given(self, name: str) -> str:
        """SHA-256 of the calibration that the recipe names; empty where it names none.

        Raises:
            RecipeError: there is no such file, or it belongs to another model or format.

        """
        from exporter.quantization.calibration import read  # noqa: PLC0415

        step = self.of[name]
        if step.calibration is None:
            return ""
        where, path = f"{self._where(name)}.calibration", self._plan.recipe.root / step.calibration
        found = read(path, where)
        digest = self._plan.digest(name)
        if digest is not None and found.digest != digest:
            raise RecipeError(
                f"{where}: {path} is of another model ({found.digest[:12]}…, this is {digest[:12]}…); leave it out to calibrate"
            )
        if found.format != step.format or found.part != name:
            raise RecipeError(f"{where}: {path} is of {found.part} in {found.format}; this is {name} in {step.format}")
        return file_digest(path)

    def _calibrate(self, folder: Path, name: str, opset: int, digest: str, done: Done) -> None:
        from exporter.quantization.calibrate import Given  # noqa: PLC0415 - onnx
        from exporter.stages.passes import seen  # noqa: PLC0415

        step = self.of[name]
        if step.calibration is not None:
            shutil.copyfile(self._plan.recipe.root / step.calibration, folder / _CALIBRATION)
            return
        given = Given(
            part=name,
            where=self._where(name),
            digest=digest,
            graph=done["export", f"{name}, opset {opset}"] / f"{name}.onnx",
            signature=self._plan.family.signature(name),
            cases=seen(name, done[self._plan.reference]) if step.recorded else (),
            outputs=self._outputs(name),
            folder=folder,
        )
        step.calibrate(given).dump(folder / _CALIBRATION)

    def _quantize(self, folder: Path, name: str, opset: int, done: Done) -> None:
        from exporter.quantization.calibrate import count  # noqa: PLC0415 - onnx
        from exporter.quantization.calibration import read  # noqa: PLC0415

        exported = done["export", f"{name}, opset {opset}"]
        calibration = read(done["calibrate", f"{name}, opset {opset}"] / _CALIBRATION, name)
        nodes = self.of[name].apply(exported / f"{name}.onnx", calibration, folder / f"{name}.onnx")
        facts: dict[str, Any] = json.loads((exported / "facts.txt").read_text())
        facts |= {"nodes": nodes, "layers": count(exported / f"{name}.onnx")}
        (folder / "facts.txt").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")

    def _rival(self, folder: Path, name: str, target: str, done: Done) -> None:
        backend = self._plan.targets[name][target]
        graph = done["export", f"{name}, opset {backend.opset}"] / f"{name}.onnx"
        backend.build(graph, self._plan.family.signature(name), folder)

    def _weigh(self, folder: Path, name: str, done: Done) -> None:
        from exporter.quantization.gate import weigh  # noqa: PLC0415

        (folder / "weighed.txt").write_text(json.dumps(weigh(self._plan, name, done), indent=1) + "\n", encoding="utf-8")

    def _weighed(self, name: str, done: Done) -> dict[str, Any]:
        return json.loads((done["weigh", name] / "weighed.txt").read_text(encoding="utf-8"))


def digest_of(plan: Plan, name: str) -> str | None:
    """Digest of a part's weights where it is known before anything is made."""
    return None if name in plan.passes.remade else plan.checkpoint.digest(network(name))

"""Models, files and recipes as nobody should write them: one odd input per number, and what the command line makes of it."""

import contextlib
import io
import json
import random
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from engines.errors import T2IError
from exporter import cli
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from exporter.stages.stage import Results
from exporter.stages.store import Store
from exporter.stages.vendors import located, vendors

RECIPE = {
    "model": {"source": "SOURCE"},
    "sampler": {"steps": [1], "guidance": {"mode": "classifier_free", "scale": 3.0}},
    "shapes": {"height": [32, 32, 32], "width": [32, 32, 32], "batch": [1, 1, 1]},
    "targets": [{"onnxruntime": {}}],
    "checks": {"prompts": ["a red circle"]},
}
#: What a field may hold that it should not.
VALUES = (
    *(None, True, False, 0, -1, 1, 2, 3, 5, 7, 64, 10**6, 1e-30, 0.5, -0.5, float("nan"), float("inf"), 10**400),
    *("", "x", "1", "None", "../x", "ü\ud800", "a\0b", "{}", [], [0], [None], [1, "a"], [[1], [2]], [4, 8], [1, 2, 3, 4, 5]),
    *({}, {"a": 1}, {"": []}, "epsilon", "v_prediction", "sample", "trailing", "linear", "UNet2DConditionModel", "silu"),
)
BYTES = (b"", b"\xff\xfe\x00", b"{", b"[]", b"null", b"3", b'"x"', b"{}", b"\xef\xbb\xbf{}", b"[[[[", b'{"a": 1}', b"\0" * 64)
SCHEDULERS = (
    *("DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "LCMScheduler"),
    *("DDPMScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "PNDMScheduler", "DEISMultistepScheduler"),
    *("KDPM2DiscreteScheduler", "TCDScheduler", "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler", "SASolverScheduler"),
    *("RePaintScheduler", "VQDiffusionScheduler", "ScoreSdeVeScheduler", "CMStochasticIterativeScheduler", "SchedulerMixin"),
)
#: Stages that need no export: what they do with the model is what a build begins with.
_CHEAP = {"tokenize", "compile", "process"}


@dataclass(frozen=True)
class Odd:
    """One input: the recipe's text, the folder that it counts from, and what was done to it, in words."""

    text: str
    folder: Path
    done: tuple[str, ...]


class _Folder:
    """A copy of a model in which files are links until they are changed."""

    def __init__(self, source: Path, target: Path, dice: random.Random) -> None:
        self.place, self.dice, self.done = target, dice, list[str]()
        shutil.copytree(source, target, copy_function=lambda a, b: Path(b).symlink_to(a))

    def write(self, file: Path, content: bytes) -> None:
        file.unlink(missing_ok=True)
        file.write_bytes(content)

    def files(self, *endings: str) -> list[Path]:
        return sorted(path for path in self.place.rglob("*") if path.name.endswith(endings) and path.is_file())

    def field(self) -> None:
        """Change, remove or add a field of a config."""
        file = self.dice.choice([path for path in self.files(".json") if path.name != "vocab.json"])
        content = json.loads(file.read_bytes())
        name = self.dice.choice([*content, "unheard_of"])
        if isinstance(content.get(name), list) and self.dice.random() < 0.5:
            content[name] = [*content[name]]
            content[name][self.dice.randrange(len(content[name]) or 1) :] = [self.dice.choice(VALUES)]
        elif self.dice.random() < 0.2:
            content.pop(name, None)
        else:
            content[name] = self.dice.choice(VALUES)
        self.done.append(f"{file.relative_to(self.place)}: {name} = {content.get(name, 'gone')!r:.60}")
        self.write(file, json.dumps(content).encode())

    def file(self) -> None:
        """Replace, cut or remove a file, or a folder."""
        file, choice = self.dice.choice(self.files("")), self.dice.random()
        if choice < 0.2:
            file.unlink()
            self.done.append(f"{file.relative_to(self.place)} is gone")
        elif choice < 0.3:
            shutil.rmtree(file.parent)
            self.done.append(f"{file.parent.name}/ is gone")
        else:
            whole = file.read_bytes()
            content = self.dice.choice([*BYTES, whole[: len(whole) // 2], whole[:100], whole[:-1], whole + b"\0"])
            self.write(file, content)
            self.done.append(f"{file.relative_to(self.place)} holds {content[:20]!r}, {len(content)} bytes")

    def weights(self) -> None:
        """Change a tensor of a network: its name, shape, type or numbers."""
        file = self.dice.choice(self.files(".safetensors"))
        tensors = dict(load_file(file))
        name = self.dice.choice(sorted(tensors))
        tensor = tensors.pop(name)
        with np.errstate(invalid="ignore"):  # what is NaN since a change before is no number of int8
            whole = tensor.astype(np.int8)
        kinds = {
            "is gone": {},
            "is called x": {"x": tensor},
            "is called x.weight": {"x.weight": tensor},
            "is flat": {name: tensor.ravel()},
            "is longer": {name: np.concatenate([tensor, tensor])},
            "is empty": {name: tensor[:0]},
            "is one number": {name: np.float32(1).reshape(())},
            "is of int8": {name: whole},
            "is of bool": {name: tensor.astype(bool)},
            "is of float64": {name: tensor.astype(np.float64)},
            "is NaN": {name: np.full(tensor.shape, np.nan, np.float32)},
            "is huge": {name: np.full(tensor.shape, 3e38, np.float32)},
            "is zero": {name: np.zeros_like(tensor)},
        }
        kind = self.dice.choice(sorted(kinds))
        file.unlink()
        save_file({**tensors, **kinds[kind]}, file)
        self.done.append(f"{file.relative_to(self.place)}: {name} {kind}")

    def lora(self) -> Path:
        """A LoRA with names as trainers write them, more or less, and shapes that need not fit."""
        stem = self.dice.choice([
            *("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "unet.conv_in", "unet.nothing.here"),
            *("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", "lora_te_x", "transformer.blocks.0"),
            *("lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
            "diffusion_model.input_blocks.0.0",
        ])  # fmt: skip
        ends = (
            *(
                "lora_down.weight",
                "lora_up.weight",
                "alpha",
                "lora.down.weight",
                "lora.up.weight",
                "lora_A.weight",
                "lora_B.weight",
            ),
            *(
                "dora_scale",
                "hada_w1_a",
                "hada_w1_b",
                "hada_w2_a",
                "hada_w2_b",
                "lokr_w1",
                "lokr_w2",
                "diff",
                "diff_b",
                "lora_mid.weight",
            ),
        )
        shapes = [(), (1,), (4, 8), (8, 4), (16, 4), (4, 16), (8, 8, 3, 3), (4, 4, 1, 1), (0, 4), (16,)]
        tensors = {
            f"{stem}.{end}": np.ones(self.dice.choice(shapes), np.float32)
            for end in self.dice.sample(ends, self.dice.randint(1, 4))
        }
        file = self.place / "lora.safetensors"
        said = self.dice.choice(
            [None, {"ss_base_model_version": "x"}, {"lora_adapter_metadata": "{"}, {"lora_adapter_metadata": '{"unet.r": "x"}'}]
        )
        save_file(tensors, file, metadata=said)
        self.done.append(f"LoRA {', '.join(f'{name} {value.shape}' for name, value in tensors.items())}, {said}")
        return file

    def single(self) -> Path:
        """The model as one file, under the prefixes of single files, with odd metadata."""
        prefixes = {
            "unet": "model.diffusion_model.",
            "vae": "first_stage_model.",
            "text_encoder": "cond_stage_model.transformer.",
        }
        tensors = {}
        for file in self.files(".safetensors"):
            start = self.dice.choice([prefixes.get(file.parent.name, ""), "", "x."])
            tensors |= {start + name: value for name, value in load_file(file).items()}
        for name in self.dice.sample(sorted(tensors), self.dice.randint(0, 3)):
            tensors[self.dice.choice(["v_pred", "ztsnr", "edm_mean", "edm_vpred.sigma_max", "input_blocks.0.0.weight"])] = (
                tensors.pop(name)
            )
        said = {self.dice.choice(["modelspec.architecture", "modelspec.prediction_type", "modelspec.resolution", "x"]): "ü 9x"}
        file = self.place / "single.safetensors"
        save_file(tensors, file, metadata=self.dice.choice([None, said]))
        self.done.append(f"single file of {len(tensors)} tensors, {said}")
        return file


def odd(number: int, source: Path, place: Path) -> Odd:
    """The odd input of this number; the same each time."""
    dice = random.Random(number)  # noqa: S311 - nothing is secret here
    folder, recipe = _Folder(source, place / "model", dice), json.loads(json.dumps(RECIPE))
    recipe["model"]["source"] = str(folder.place)
    kind = dice.choice(("field", "field", "field", "file", "weights", "sampler", "recipe", "text", "lora", "single"))
    if kind in {"field", "file", "weights"}:
        for _ in range(dice.choice((1, 1, 2, 4))):
            with contextlib.suppress(FileNotFoundError, IndexError, ValueError, TypeError, AttributeError):  # changed before
                getattr(folder, kind)()
    elif kind == "sampler":
        fields = (
            *("beta_schedule", "prediction_type", "timestep_spacing", "solver_order", "beta_start", "num_train_timesteps", "x"),
            *("use_karras_sigmas", "steps_offset", "algorithm_type", "sigma_max", "trained_betas", "rescale_betas_zero_snr"),
        )
        recipe["sampler"] |= {"scheduler": dice.choice(SCHEDULERS)}
        recipe["sampler"]["config"] = {dice.choice(fields): dice.choice(VALUES) for _ in range(dice.randint(0, 3))}
        recipe["sampler"]["steps"] = [dice.choice((1, 2, 3, 5, 20))]
        folder.done.append(str(recipe["sampler"]))
    elif kind == "lora":
        recipe["model"]["loras"] = [{"source": str(folder.lora()), "scale": dice.choice((1.0, 0.0, -1.0, 1e30))}]
    elif kind == "single":
        recipe["model"]["source"] = str(folder.single())
        if dice.random() < 0.7:
            recipe["model"]["architecture"] = dice.choice(("sd-v1-5", "sdxl-base", "micro-sdxl", "nothing"))
    elif kind == "recipe":
        for _ in range(dice.randint(1, 3)):
            _change(recipe, dice, folder.done)
    text = json.dumps(recipe, indent=1)
    if kind == "text":
        where, what = (
            dice.randrange(len(text)),
            dice.choice(("", ":", "\t", "- ", "{", "*a", "&a", "!!python/x ", "\n", "\x07", "% ", "|", "é")),
        )
        text = text[:where] + what + text[where + dice.randrange(9) :]
        folder.done.append(f"{what!r} at {where}")
    return Odd(text, place, (kind, *folder.done))


def _change(tree: dict, dice: random.Random, done: list[str]) -> None:
    """Change one field somewhere in a recipe, or add one that it may have."""
    more = {
        "components": {"unet": {"passes": [{dice.choice(("prune", "swap", "quantize", "distill", "x")): dice.choice(VALUES)}]}}
    }
    more |= {"pipeline": dice.choice(VALUES), "prompts": dice.choice(VALUES), "bundle": dice.choice(VALUES)}
    if dice.random() < 0.3:
        name = dice.choice(sorted(more))
        tree[name] = more[name]
        done.append(f"{name}: {more[name]!r:.60}")
        return
    at, path = tree, []
    while True:
        keys = list(range(len(at))) if isinstance(at, list) else list(at)
        if not keys:
            return
        path.append(key := dice.choice(keys))
        if not isinstance(at[key], dict | list) or dice.random() < 0.3:
            at[key] = dice.choice(VALUES)
            done.append(f"{path} = {at[key]!r:.60}")
            return
        at = at[key]


def outcome(case: Odd, *, record: bool) -> BaseException | None:
    """What a build's beginning raises that is no sentence: planning, what needs no export, loading each network; or None."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            _begin(case, record=record)
    except T2IError as error:
        str(error).encode()  # as it is printed
        return None
    except Exception as error:  # noqa: BLE001 - the one thing that is looked for
        return None if cli.known(error) else error
    return None


def _begin(case: Odd, *, record: bool) -> None:
    file = case.folder / "recipe.yaml"
    file.write_bytes(case.text.encode(errors="surrogatepass"))
    recipe = Recipe.load(file)
    with located(recipe):
        plan = Plan(recipe)
        plan.refuse()
        wanted = _CHEAP | ({"record"} if record else set())
        results = Results(Store(case.folder / "store"))
        for stage in plan.stages:
            if stage.verb in wanted:
                with tempfile.TemporaryDirectory(dir=case.folder) as made, vendors(f"{stage.verb} of {stage.subject}"):
                    results.fill(stage, Path(made))
        for network in plan.checkpoint.files:
            with vendors(f"export of {network}"):
                plan.checkpoint.module(network)

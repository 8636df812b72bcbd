"""Names under which people know samplers, of A1111's and ComfyUI's lists: a solver, and maybe how its steps are spaced.

As in diffusers' table of them (docs/source/en/api/schedulers/overview.md).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

_SDE = {"algorithm_type": "sde-dpmsolver++"}
#: Class in diffusers, its config, and the names of the solver; the first is shown.
_SOLVERS: tuple[tuple[str, Mapping[str, Any], tuple[str, ...]], ...] = (
    ("EulerDiscreteScheduler", {}, ("Euler",)),
    ("EulerAncestralDiscreteScheduler", {}, ("Euler a", "euler_ancestral")),
    ("HeunDiscreteScheduler", {}, ("Heun",)),
    ("KDPM2DiscreteScheduler", {}, ("DPM2", "dpm_2")),
    ("KDPM2AncestralDiscreteScheduler", {}, ("DPM2 a", "dpm_2_ancestral")),
    ("LMSDiscreteScheduler", {}, ("LMS",)),
    ("DPMSolverMultistepScheduler", {}, ("DPM++ 2M", "dpmpp_2m")),
    ("DPMSolverMultistepScheduler", _SDE, ("DPM++ 2M SDE", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu")),
    ("DPMSolverMultistepScheduler", {**_SDE, "solver_order": 3}, ("DPM++ 3M SDE", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu")),
    ("DPMSolverSDEScheduler", {}, ("DPM++ SDE", "dpmpp_sde", "dpmpp_sde_gpu")),
    # Of both variants bh2: diffusers' bh1 ends in NaN at the last step, where there is no noise left.
    ("UniPCMultistepScheduler", {}, ("UniPC", "uni_pc", "uni_pc_bh2")),
    ("DEISMultistepScheduler", {}, ("DEIS",)),
    ("SASolverScheduler", {}, ("SA-Solver", "sa_solver")),
    ("IPNDMScheduler", {}, ("iPNDM",)),
    ("PNDMScheduler", {"skip_prk_steps": True}, ("PLMS", "pndm")),
    ("DDIMScheduler", {}, ("DDIM",)),
    ("DDPMScheduler", {}, ("DDPM",)),
    ("LCMScheduler", {}, ("LCM",)),
    ("TCDScheduler", {}, ("TCD",)),
)
#: Config of a spacing, and its names.
_SPACINGS: tuple[tuple[Mapping[str, Any], tuple[str, ...]], ...] = (
    ({"use_karras_sigmas": True}, ("Karras",)),
    ({"use_exponential_sigmas": True, "timestep_spacing": "linspace"}, ("Exponential",)),
    ({"use_beta_sigmas": True, "timestep_spacing": "linspace"}, ("Beta",)),
    ({"timestep_spacing": "trailing"}, ("SGM Uniform", "sgm_uniform", "simple")),
    ({"timestep_spacing": "linspace"}, ("Normal",)),
    ({"timestep_spacing": "leading"}, ("DDIM Uniform", "ddim_uniform")),
)
#: Solvers of those lists that diffusers does not have, and the nearest that it has.
_ABSENT = {
    "DPM++ 2S a": "DPM++ 2M SDE",
    "dpmpp_2s_ancestral": "DPM++ 2M SDE",
    "DPM fast": "DPM++ 2M",
    "DPM adaptive": "DPM++ 2M",
    "Restart": "Heun",
    "Euler CFG++": "Euler",
    "euler_cfg_pp": "Euler",
    "res_multistep": "DPM++ 2M",
}


def expand(name: str) -> tuple[str, dict[str, Any]] | None:
    """The class and the config that a name stands for; None where it stands for neither, as a class's own name does."""
    return _known().get(_plain(name))


def absent(name: str) -> str | None:
    """For a solver of those lists that diffusers does not have, the nearest one that it has."""
    return next((near for known, near in _ABSENT.items() if _plain(name).startswith(_plain(known))), None)


def near(name: str) -> str | None:
    """The shown name that is spelled most alike, if any is."""
    spelled = {_plain(shown): shown for shown in shown_names()}
    found = difflib.get_close_matches(_plain(name), spelled, n=1)
    return spelled[found[0]] if found else None


def rows() -> Iterator[tuple[tuple[str, ...], str, Mapping[str, Any]]]:
    """Every solver: its names, class and config."""
    return ((names, kind, config) for kind, config, names in _SOLVERS)


def spacings() -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every spacing: its names and config."""
    return ((names, config) for config, names in _SPACINGS)


def shown_names() -> list[str]:
    """Of every solver, alone and with every spacing, the name that is shown."""
    solvers, ways = ([names[0] for *_, names in table] for table in (_SOLVERS, _SPACINGS))
    return [*solvers, *(f"{solver} {way}" for solver in solvers for way in ways)]


def _known() -> dict[str, tuple[str, dict[str, Any]]]:
    solvers = {_plain(name): (kind, dict(config)) for kind, config, names in _SOLVERS for name in names}
    ways = {_plain(name): dict(config) for config, names in _SPACINGS for name in names}
    both = {f"{solver}{way}": (kind, config | more) for solver, (kind, config) in solvers.items() for way, more in ways.items()}
    return both | solvers


def _plain(name: str) -> str:
    """Without case, signs and the letter that k-diffusion's names begin with."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "p"))
    return re.sub(r"^(sample|k)(?=euler|heun|lms|dpm)", "", plain)

"""What the run time plays: what each file says when it is opened, and which part of a recipe makes which anew."""

from types import SimpleNamespace

import pytest

from engines.bundle import Tokenizer
from engines.errors import UnsupportedError
from engines.samplers.table import Handovers, Starts
from exporter.families import Driving
from exporter.stages import tables
from exporter.stages.stage import Results
from exporter.stages.store import Store
from exporter.stages.tables import ProcessFile, SamplerFile, TokenizerFiles
from tests.engines import small
from tests.exporter.stages.planned import changed, names, plan

ENCODER = "components.vae_encoder={}"


def test_a_tokenizer_is_kept_with_what_the_manifest_says_of_it(tmp_path):
    entry = Tokenizer(file="tokenizers/x.json", length=77, feeds="x_ids", mask="x_mask")
    first, second = (TokenizerFiles(tmp_path, name) for name in ("tokenizer", "tokenizer_2"))
    first.write(entry, '{"é": 1}')
    second.write(entry.model_copy(update={"length": 5}), "{}")
    assert first.entry == entry
    assert first.file.read_text(encoding="utf-8") == '{"é": 1}'
    assert second.entry.length == 5


@pytest.mark.parametrize("size", [(None, None), (64, 32)])
def test_a_sampler_says_for_which_size_it_is(tmp_path, size):
    table = small.table(4)
    height, width = size
    table = table.model_copy(update={"provenance": table.provenance.model_copy(update={"height": height, "width": width})})
    table.dump(tmp_path / "4.json")
    made = SamplerFile(tmp_path, "4.json")
    assert made.size == size
    assert made.table == table


def test_a_scheduler_may_have_no_process(tmp_path):
    assert ProcessFile(tmp_path).file is None
    small.process().dump(tmp_path / "process.json")
    assert ProcessFile(tmp_path).file == tmp_path / "process.json"


def test_starts_are_compiled_where_there_is_an_encoder():
    made = plan().tables
    assert names(made.stages) == ["tokenize tokenizer", "compile 2 steps", "compile 4 steps", "process scheduler"]
    assert (list(made.samplers), made.further) == ([2, 4], {})
    made = plan(ENCODER).tables
    assert list(made.further["image"]) == [2, 4]
    assert made.further["image"][2].name == ("compile", "2 steps from an image")


def test_handovers_are_compiled_where_the_recipe_asks_for_them(tmp_path):
    made = plan("sampler.handover=true").tables
    assert made.further.keys() == {"handover"}
    stage = made.further["handover"][2]
    assert (stage.name, stage in made.stages) == (("compile", "2 steps between two steps"), True)
    found = Handovers.read(Results(Store(tmp_path))[stage].file, 2**20)
    assert (found.provenance.steps, list(found.starts)) == (2, [0, 1])
    assert made.samplers[2].key == plan().tables.samplers[2].key


TABLES = {"tokenize tokenizer", "compile 2 steps", "compile 4 steps", "process scheduler"}


@pytest.mark.parametrize(
    ("override", "anew"),
    [
        ("sampler.steps=[4]", {"compile 2 steps"}),
        ("sampler.guidance.scale=9.0", set()),
        ("sampler.config.final_sigmas_type=sigma_min", {"compile 2 steps", "compile 4 steps", "process scheduler"}),
        ("sampler.scheduler=HeunDiscreteScheduler", {"compile 2 steps", "compile 4 steps", "process scheduler"}),
        ("shapes.height=[512, 640, 768]", {"compile 2 steps", "compile 4 steps"}),  # the times may depend on the default size
        ("shapes.height=[256, 512, 768]", set()),
        ("prompts.chunks=2", {"tokenize tokenizer"}),
        (ENCODER, {"compile 2 steps", "compile 4 steps", "compile 2 steps from an image", "compile 4 steps from an image"}),
    ],
)
def test_what_is_made_anew(override, anew):
    found = {name for name in changed(plan(), plan(override)) if name.startswith(("tokenize", "compile", "process"))}
    assert found == anew


@pytest.fixture
def compiler(monkeypatch):
    """What compiles writes down what it is asked for, and runs no scheduler."""
    asked = SimpleNamespace(table=[], configured=[], spread=[], refused=[], process=[])

    def configure(name, **arguments):
        asked.configured.append((name, arguments))

        def starts(*, spread):
            asked.spread.append(spread)
            return small.starts(arguments["steps"])

        return SimpleNamespace(make=lambda: "a scheduler", starts=starts)

    def compile_sampler(name, **arguments):
        asked.table.append((name, arguments))
        return small.table(arguments["steps"])

    def compile_process(*given):
        asked.process.append(given)
        if given[0] == "LCMScheduler":
            raise UnsupportedError("it undoes nothing")
        return small.process()

    for name, stands in (
        ("compile_sampler.compile_sampler", compile_sampler),
        ("compile_sampler.configure", configure),
        ("loop.refuse_given", asked.refused.append),
        ("noise_schedule.compile_process", compile_process),
    ):
        monkeypatch.setattr(f"exporter.schedulers.{name}", stands)
    return asked


def test_a_sampler_is_compiled_as_the_recipe_has_it(compiler, tmp_path):
    chosen = plan()
    found = Results(Store(tmp_path))[chosen.tables.samplers[4]]
    assert found.table == small.table(4)
    ((name, given),) = compiler.table
    assert name == "EulerDiscreteScheduler"
    assert (given["steps"], given["height"], given["width"]) == (4, 512, 512)
    assert given["config"] == {"timestep_spacing": "trailing"}
    assert given["own"] == chosen.checkpoint.configs["scheduler"]
    assert given["driving"] == chosen.family.driving
    assert (given["timesteps"], given["sigmas"]) == (None, None)
    assert compiler.refused == []


def test_a_power_law_gives_every_number_of_steps_a_grid_of_its_own(compiler):
    family = plan("sampler.timesteps={power: 2}").family
    for steps, grid in ((4, (999, 561, 249, 61)), (2, (999, 249))):
        tables.compiled(family, steps)
        assert compiler.table[-1][1]["timesteps"] == grid


def test_the_recipe_s_grid_stands_in_for_the_pipeline_s(compiler, monkeypatch):
    own = {"sigmas": [1.0, 0.5], "mu": 0.7}
    for change, told in (("sampler.timesteps=[999, 499]", ((999, 499), None)), ("sampler.steps=[2]", (None, [1.0, 0.5]))):
        family = plan("sampler.steps=[2]", change).family
        monkeypatch.setattr(type(family), "times", lambda *_: own)
        tables.compiled(family, 2)
        given = compiler.table[-1][1]
        assert (given["timesteps"], given["sigmas"], given["mu"]) == (*told, 0.7)


def test_without_a_name_it_is_the_model_s_own_scheduler(compiler):
    tables.compiled(plan("sampler.scheduler=null", "sampler.config={}").family, 2)
    assert compiler.table[0][0] == "PNDMScheduler"


def test_a_bundle_that_starts_from_images_refuses_given_times_first(compiler, tmp_path):
    chosen = plan(ENCODER)
    results = Results(Store(tmp_path))
    assert results[chosen.tables.samplers[2]].size == (None, None)
    assert compiler.refused == ["a scheduler"]
    starts = results[chosen.tables.further["image"][2]]
    assert starts.file.name == "2-image.json"
    assert Starts.model_validate_json(starts.file.read_text()) == small.starts(2)
    assert [(name, given["steps"]) for name, given in compiler.configured] == [("EulerDiscreteScheduler", 2)] * 2
    assert compiler.spread == [False]


def test_tables_of_steps_that_are_spread_over_the_strength_are_others(compiler, tmp_path, monkeypatch):
    usual = plan(ENCODER).tables.further["image"][2].key
    monkeypatch.setattr(type(plan().family), "partial_step", "spread")
    chosen = plan(ENCODER).tables.further["image"][2]
    assert chosen.key != usual
    assert Results(Store(tmp_path))[chosen].file.exists()
    assert compiler.spread == [True]


def test_a_process_is_written_or_why_there_is_none(compiler, tmp_path):
    results = Results(Store(tmp_path))
    assert results[plan().tables.process].file.name == "process.json"
    assert compiler.process[0][:2] == ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"})
    absent = results[plan("sampler.scheduler=LCMScheduler", "sampler.force=true").tables.process]
    assert absent.file is None
    assert (absent.folder / "absent.txt").read_text() == "it undoes nothing\n"


def test_there_is_no_process_where_the_network_is_told_the_noises_level(compiler, tmp_path, monkeypatch):
    usual = plan().tables.process.key
    monkeypatch.setattr(type(plan().family), "driving", Driving(levels=True))
    leveled = plan().tables.process
    assert leveled.key != usual
    absent = Results(Store(tmp_path))[leveled]
    assert (absent.file, compiler.process) == (None, [])
    assert "computed from the noise's level" in (absent.folder / "absent.txt").read_text()


def test_there_is_no_process_where_the_pipeline_starts_from_more_noise(compiler, tmp_path, monkeypatch):
    usual = plan().tables.process.key
    monkeypatch.setattr(type(plan().family), "driving", Driving(pipeline="APipeline", unit=2.0))
    scaled = plan().tables.process
    assert scaled.key != usual
    absent = Results(Store(tmp_path))[scaled]
    assert (absent.file, compiler.process) == (None, [])
    assert (absent.folder / "absent.txt").read_text().startswith("APipeline starts from 2 times the noise")


def test_a_tokenizer_s_stage_keeps_its_own(tmp_path):
    chosen = plan()
    entry = Tokenizer(file="tokenizer.json", length=77, feeds="tokenizer_ids")
    chosen.family.tokenizers = lambda: {"tokenizer": (entry, "{}"), "tokenizer_2": (entry, "other")}
    made = Results(Store(tmp_path))[chosen.tables.tokenizers["tokenizer"]]
    assert (made.entry, made.file.read_text()) == (entry, "{}")

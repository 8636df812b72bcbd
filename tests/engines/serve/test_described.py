from engines.serve.described import described, samplers, scheduler
from engines.serve.options import ServeOptions


def test_a_client_reads_what_it_may_ask_for(serve):
    told = described(serve("editor", encoder=True), ServeOptions(max_steps=9))
    assert told["height"] == {"min": 16, "max": 64, "step": 16}
    assert told["steps"] == [2, 4]
    assert told["samplers"] == ["Toy", "adaptive", "ode", "predictor_corrector"]
    assert (told["image"], told["negative_prompt"], told["prompts"], told["batching"]) == (True, True, 1, "continuous")
    assert told["limits"]["max_steps"] == 9
    assert told["defaults"] == {"height": 32, "width": 32, "steps": 2, "generator": "numpy", "guidance_scale": 2.0}
    assert described(serve("plain", mode="none", process=None), ServeOptions())["guidance"] == []


def test_the_sampler_is_the_scheduler_it_was_compiled_from(serve):
    served = serve()
    assert scheduler(served) == "Toy"
    assert samplers(serve("bare", process=None)) == {"Toy": []}

"""Which arguments have prompts written anew, and by which components."""

from exporter.families.tracing.following import rewriting


def pipeline(call, **components):
    """A pipeline of such a call and components."""
    made = type("SomePipeline", (), {"__call__": call})()
    made.components = components
    return made


def enhanced(self, prompt, *, use_pe=True): ...


def rewritten(self, prompt, *, enable_prompt_rewrite=True): ...


def plain(self, prompt): ...


def test_a_switch_counts_where_there_is_what_it_switches():
    made = pipeline(enhanced, pe=object(), pe_tokenizer=object(), vae=object())
    assert rewriting.of(made) == {"use_pe": ["pe", "pe_tokenizer"]}
    assert rewriting.of(pipeline(enhanced, pe=None, pe_tokenizer=None, vae=object())) == {}
    assert rewriting.of(pipeline(plain)) == {}


def test_a_switch_may_name_no_component():
    assert rewriting.of(pipeline(rewritten, text_encoder=object())) == {"enable_prompt_rewrite": []}

"""Weighted prompts by the rules that A1111 and compel publish, with transformers alone: what graphs are held to."""

import torch


class A1111:
    """Its published rules (sd_hijack_clip.py, sd_emphasis.py): (x:w) multiplies states, and each chunk keeps its mean."""

    def __call__(self, encode, chunks, empty):  # noqa: ARG002
        states = []
        for ids, weights in chunks:
            z = encode(ids)
            mean = z.mean()
            z = z * torch.tensor(weights)[None, :, None]
            states.append(z * (mean / z.mean()))
        return torch.hstack(states)


class Compel:
    """Its published rules (embeddings_provider.py): words move away from the empty prompt."""

    def __call__(self, encode, chunks, empty):
        base = encode(empty)
        return torch.hstack([base + (encode(ids) - base) * torch.tensor(weights)[None, :, None] for ids, weights in chunks])


def by_hand(tokenizer, encode, fragments, count, rule):
    """States of weighted fragments: tokens of each, cut in pieces of 75, each with its own start, end and padding."""
    tokens = [(number, weight) for text, weight in fragments for number in tokenizer(text, add_special_tokens=False).input_ids]
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    chunks = []
    for index in range(count):
        piece = tokens[index * 75 : index * 75 + 75]
        space = 75 - len(piece)
        ids = [start, *(number for number, _ in piece), end, *[pad] * space]
        chunks.append((torch.tensor([ids]), [1.0, *(weight for _, weight in piece), *[1.0] * (space + 1)]))
    return rule(encode, chunks, torch.tensor([[start, end, *[pad] * 75]]))

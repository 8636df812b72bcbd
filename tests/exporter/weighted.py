"""Weighted prompts by the rules that A1111 and compel publish, with transformers alone: what graphs are held to."""

import math

import torch


class A1111:
    """Its published rules (sd_hijack_clip.py, sd_emphasis.py): (x:w) multiplies states, and each chunk keeps its mean."""

    def __call__(self, encode, chunks, empty, fragments):  # noqa: ARG002
        states = []
        for ids, weights, _ in chunks:
            z = encode(ids)
            mean = z.mean()
            z = z * torch.tensor(weights)[None, :, None]
            states.append(z * (mean / z.mean()))
        return torch.hstack(states)


class Compel:
    """Its published rules (embeddings_provider.py): words move away from the empty prompt, or to the text without them."""

    def __call__(self, encode, chunks, empty, fragments):
        base = encode(empty)

        def states(hidden):
            found = []
            for ids, weights, owners in chunks:
                mask = torch.tensor([[int(owner != hidden) for owner in owners]])
                found.append(base + (encode(ids, mask) - base) * torch.tensor(weights)[None, :, None])
            return torch.hstack(found)

        low = [(number, weight) for number, (_, weight) in enumerate(fragments) if weight < 1]
        shares = [1.0, *(math.tan((1 - weight) * math.pi / 2) for _, weight in low)]
        mixed = [states(hidden) for hidden in (-2, *(number for number, _ in low))]
        return sum(share * each for share, each in zip(shares, mixed, strict=True)) / sum(shares)


def by_hand(tokenizer, encode, fragments, count, rule):
    """States of weighted fragments: tokens of each, cut in pieces of 75, each with its own start, end and padding."""
    tokens = [
        (token, weight, number)
        for number, (text, weight) in enumerate(fragments)
        for token in tokenizer(text, add_special_tokens=False).input_ids
    ]
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    chunks = []
    for index in range(count):
        piece = tokens[index * 75 : index * 75 + 75]
        space = 75 - len(piece)
        ids = [start, *(token for token, _, _ in piece), end, *[pad] * space]
        weights = [1.0, *(weight for _, weight, _ in piece), *[1.0] * (space + 1)]
        chunks.append((torch.tensor([ids]), weights, [-1, *(number for _, _, number in piece), *[-1] * (space + 1)]))
    return rule(encode, chunks, torch.tensor([[start, end, *[pad] * 75]]), fragments)

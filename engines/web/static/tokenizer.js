/**
 * CLIP's tokenizer from the bundle's tokenizer.json, as the library `tokenizers` runs it (engines/tokenizer.py).
 *
 * Added tokens are looked for in the text as it was typed, or in the normalized text, as each says; what is between them is
 * normalized (NFC, white space, lower case), divided into words, and every word's bytes are merged by rank.
 */

import { chunked } from "./chunks.js";
import { read } from "./weighted_text.js";

const SPACES = /\p{White_Space}+/gu;
/** How ByteLevel, which is GPT-2's, divides a word of CLIP's once more; there is no white space in one. */
const BYTE_LEVEL = /'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}+|[^\p{L}\p{N}]+/gu;

/** Character that stands for each byte, as in GPT-2: itself where it can be seen, else one from 256 on. */
const BYTES = (() => {
  const seen = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(seen(byte) ? byte : next++));
})();
const UTF8 = new TextEncoder();

/** A code point at a time, as Rust does it: no other letter decides what becomes of a sigma. */
const lower = (text) => Array.from(text, (letter) => letter.toLowerCase()).join("");
const normalize = (text) => lower(text.toWellFormed().normalize("NFC").replace(SPACES, " "));
const escape = (text) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");

/** A letter's bytes as symbols; the letter belongs to the last one. */
function lettered(letter) {
  const bytes = Array.from(UTF8.encode(letter));
  return bytes.map((byte, index) => ({ symbol: BYTES[byte], text: index + 1 < bytes.length ? "" : letter }));
}

/** One expression for several words, the longest first; null for none. */
function any(words) {
  const sorted = [...words].sort((a, b) => b.length - a.length);
  return sorted.length ? new RegExp(`(${sorted.map(escape).join("|")})`, "u") : null;
}

export class TextTokenizer {
  #vocabulary;
  #ranks;
  #unknown;
  #end;
  #added = new Map();
  #raw;
  #normalized;
  #words = new Map();
  #split;
  #frame;
  #entry;
  #merged = new Map();

  /**
   * @param {object} content of tokenizer.json
   * @param {{length: number, chunks: number, syntax: string | null}} entry of the manifest
   */
  constructor(content, entry) {
    const { model, padding, added_tokens: added, post_processor: post } = content;
    this.#entry = entry;
    this.#vocabulary = new Map(Object.entries(model.vocab));
    this.#ranks = new Map(model.merges.map((pair, rank) => [typeof pair === "string" ? pair : pair.join(" "), rank]));
    this.#end = model.end_of_word_suffix ?? "";
    const written = ({ normalized, content: text }) => (normalized ? normalize(text) : text);
    for (const token of added) this.#added.set(written(token), token.id);
    this.#raw = any(added.filter((token) => !token.normalized).map(written));
    this.#normalized = any(added.filter((token) => token.normalized).map(written));
    this.#unknown = this.#vocabulary.get(model.unk_token) ?? this.#added.get(model.unk_token);
    const [{ pattern }] = content.pre_tokenizer.pretokenizers;
    this.#split = new RegExp(pattern.Regex.replaceAll("\\s", "\\p{White_Space}"), "gu");
    this.#several(new Set(added.map((token) => token.content)));
    const [before, behind] = special(post);
    const comma = this.#vocabulary.get(",</w>");
    this.#frame = { size: entry.length / entry.chunks, before, behind, pad: padding.pad_id, comma };
  }

  /** Ids, mask and weights of a text, and what of it is not read. */
  encode(text) {
    const { chunks, syntax } = this.#entry;
    const tokens = read(text, syntax).flatMap(({ text: piece, weight }) => {
      if (weight === null) return [null];
      return this.#tokens(this.#writtenOut(piece)).map((token) => ({ ...token, weight }));
    });
    return chunked(tokens, this.#frame, chunks, syntax);
  }

  /** Tokens of a piece of text: the id of each, and the text from it to the next one. */
  #tokens(text) {
    const found = [];
    for (const piece of apart(text.toWellFormed(), this.#raw)) {
      if (piece.whole) found.push({ id: this.#added.get(piece.text), text: piece.text });
      else {
        for (const part of apart(normalize(piece.text), this.#normalized)) {
          if (part.whole) found.push({ id: this.#added.get(part.text), text: part.text });
          else this.#read(part.text, found);
        }
      }
    }
    return found;
  }

  /** Add a normalized text's tokens; what stands between two words belongs to the first one's. */
  #read(text, found) {
    let last = 0;
    for (const { 0: split, index } of text.matchAll(this.#split)) {
      if (found.length) found.at(-1).text += text.slice(last, index);
      last = index + split.length;
      for (const [word] of split.matchAll(BYTE_LEVEL)) found.push(...this.#merge(word).map((token) => ({ ...token })));
    }
    if (found.length) found.at(-1).text += text.slice(last);
  }

  /** Tokens of one word: its bytes, merged by the pair of the lowest rank, the leftmost first, until there is none. */
  #merge(word) {
    const known = this.#merged.get(word);
    if (known) return known;
    let parts = Array.from(word).flatMap(lettered);
    parts.at(-1).symbol += this.#end;
    parts = parts.map((part) => ({ ...part, known: this.#vocabulary.has(part.symbol) })); // what has no id merges with nothing
    for (;;) {
      let [best, place] = [Infinity, -1];
      for (let i = 0; i + 1 < parts.length; i++) {
        const [left, right] = [parts[i], parts[i + 1]];
        const rank = left.known && right.known ? this.#ranks.get(`${left.symbol} ${right.symbol}`) : undefined;
        if (rank < best) [best, place] = [rank, i];
      }
      if (place < 0) break;
      const [left, right] = parts.slice(place, place + 2);
      parts.splice(place, 2, { symbol: left.symbol + right.symbol, text: left.text + right.text, known: true });
    }
    const tokens = parts.map(({ symbol, text }) => ({ id: this.#vocabulary.get(symbol) ?? this.#unknown, text }));
    this.#merged.set(word, tokens);
    return tokens;
  }

  /** Remember words of several vectors: `<cat>` with `<cat>_1`, `<cat>_2` … */
  #several(added) {
    for (const word of added) {
      const all = [word];
      while (added.has(`${word}_${all.length}`)) all.push(`${word}_${all.length}`);
      if (all.length > 1) this.#words.set(word, all.join(" "));
    }
  }

  /** The text with words of several vectors as all of their tokens. */
  #writtenOut(text) {
    const ids = this.#words.size ? new Set(this.#tokens(text).map(({ id }) => id)) : new Set();
    const there = [...this.#words.keys()].filter((word) => ids.has(this.#added.get(word) ?? this.#added.get(normalize(word))));
    return there.sort().reduce((written, word) => written.replaceAll(word, () => this.#words.get(word)), text);
  }
}

/** A text divided at what an expression finds; `whole` are the finds. */
function apart(text, expression) {
  const pieces = expression ? text.split(expression) : [text];
  return pieces.map((piece, number) => ({ text: piece, whole: number % 2 === 1 })).filter((piece) => piece.text);
}

/** Ids before and behind a text, of either kind of post-processor that CLIP's files have. */
function special(post) {
  if (post.type === "RobertaProcessing") return [[post.cls[1]], [post.sep[1]]];
  const kinds = post.single.map((each) => (each.SpecialToken ? post.special_tokens[each.SpecialToken.id].ids : null));
  const text = kinds.indexOf(null);
  return [kinds.slice(0, text).flat(), kinds.slice(text + 1).flat()];
}

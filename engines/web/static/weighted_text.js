/** Weights of words as A1111 writes them: a text → pieces of it, each with its weight (engines/weighted_text.py). */

const SPACE = String.raw`[\p{White_Space}\x1c-\x1f]`;
const LETTER = String.raw`[\p{L}\p{N}_]`;
/** What A1111 reads of a text, first match first. */
const WEIGHTS = /\\[()[\]\\]|\\|\(|\[|:([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\)|\)|\]|[^\\()[\]:]+|:/gsu;
/** What closes a bracket, which one, and what its words count then. */
const CLOSING = new Map([[")", ["(", 1.1]], ["]", ["[", 1 / 1.1]]]);
const BREAK = new RegExp(`${SPACE}*(?<!${LETTER})BREAK(?!${LETTER})${SPACE}*`, "u");
/** Of A1111, what changes a prompt while a picture is sampled, or names another network. */
const OTHER = new RegExp(
  [
    `(?<!${LETTER})AND(?!${LETTER})`,
    String.raw`\[[^\[\]]*\|[^\[\]]*\]`,
    String.raw`\[[^\[\]]*:${SPACE}*[0-9.]+${SPACE}*\]`,
    "<(?:lora|lyco|hypernet):",
  ].join("|"),
  "u",
);

/**
 * Take a text apart; without a syntax it is one piece, literally. A weight of null ends a chunk of the text encoder.
 *
 * @returns {{text: string, weight: number | null}[]}
 */
export function read(text, syntax) {
  return syntax === null ? [{ text, weight: 1 }] : a1111(text);
}

/** (x) times 1.1, [x] by 1.1, (x:1.3) times 1.3; a bracket behind a backslash is literal. */
function a1111(text) {
  const other = OTHER.exec(text);
  if (other) {
    throw new Error(
      `“${other[0]}” in a prompt is none of A1111's weights, and is not supported: there are (x), [x], (x:1.3) and BREAK. ` +
        "Leave it out, or write a backslash before a bracket.",
    );
  }
  let found = [];
  const opened = new Map([["(", []], ["[", []]]);
  const weigh = (start, factor) => {
    found = found.map((piece, index) =>
      index < start || piece.weight === null ? piece : { ...piece, weight: piece.weight * factor },
    );
  };
  for (const [word, number] of text.matchAll(WEIGHTS)) {
    const [opener, factor] = number === undefined ? (CLOSING.get(word) ?? ["", 1]) : ["(", Number(number)];
    if (opened.has(word)) opened.get(word).push(found.length);
    else if (opened.get(opener)?.length) weigh(opened.get(opener).pop(), factor);
    else if (word[0] === "\\") found.push({ text: word.slice(1), weight: 1 });
    else {
      const parts = word.split(BREAK).map((part) => ({ text: part, weight: 1 }));
      found.push(...parts.flatMap((part, index) => (index ? [{ text: "", weight: null }, part] : [part])));
    }
  }
  for (const [opener, factor] of CLOSING.values()) {
    for (const start of opened.get(opener)) weigh(start, factor); // what is not closed reaches to the end
  }
  return joined(found);
}

/** Neighbours of one weight as one piece. */
function joined(pieces) {
  const found = [];
  for (const piece of pieces) {
    const last = found.at(-1);
    if (last && piece.weight !== null && last.weight === piece.weight) last.text += piece.text;
    else found.push({ ...piece });
  }
  return found.length ? found : [{ text: "", weight: 1 }];
}

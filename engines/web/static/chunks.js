/** Texts longer than a text encoder reads at once: tokens → chunks, each with its own special tokens (engines/chunks.py). */

/** How far A1111 goes back to a comma, lest a chunk end within a phrase. */
const BACK = 20;

/**
 * @typedef {{id: number, weight: number, text: string}} Token how much it counts, and the text from it to the next one
 * @typedef {{size: number, before: number[], behind: number[], pad: number, comma?: number}} Frame what a chunk is made of
 */

/**
 * Divide tokens into so many chunks, the last ones empty where the text is short; null ends a chunk (A1111's BREAK).
 *
 * @param {(Token | null)[]} tokens
 * @param {Frame} frame
 * @returns {{ids: number[], mask: number[], weights: number[], unread: string}}
 */
export function chunked(tokens, frame, chunks, syntax = null) {
  const { size, before, behind, pad } = frame;
  const parts = divided(tokens, size - before.length - behind.length, chunks, syntax === "a1111" ? frame.comma : undefined);
  const [ids, mask, weights] = [[], [], []];
  for (let number = 0; number < chunks; number++) {
    const part = parts[number] ?? [];
    const own = [...before, ...part.map(({ id }) => id), ...behind];
    const padding = size - own.length;
    ids.push(...own, ...Array(padding).fill(pad));
    mask.push(...Array(own.length).fill(1), ...Array(padding).fill(0));
    weights.push(...Array(before.length).fill(1), ...part.map(({ weight }) => weight), ...Array(behind.length + padding).fill(1));
  }
  const unread = parts.slice(chunks).flatMap((part) => part.map(({ text }) => text)).join("");
  return { ids, mask, weights, unread };
}

function divided(tokens, room, chunks, comma) {
  const parts = [[]];
  for (const token of tokens) {
    if (token === null) {
      parts.push([]);
      continue;
    }
    const last = parts.at(-1);
    if (last.length === room) {
      let moved = 0;
      // Of the last chunk nothing moves: it would not be read.
      if (comma !== undefined && token.id !== comma && parts.length < chunks) {
        moved = Math.max(0, last.toReversed().slice(0, Math.min(BACK, room)).findIndex(({ id }) => id === comma));
      }
      parts.push(last.splice(room - moved));
    }
    parts.at(-1).push(token);
  }
  return parts;
}

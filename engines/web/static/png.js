/** A PNG of 8 bits per channel, with what made the picture as text inside, as engines/images/png.py writes it. */

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte;
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0xedb88320 : rest >>> 1;
  return rest;
});
const UTF8 = new TextEncoder();

function crc32(bytes) {
  let rest = 0xffffffff;
  for (const byte of bytes) rest = TABLE[(rest ^ byte) & 255] ^ (rest >>> 8);
  return ~rest >>> 0;
}

function number(value) {
  return [24, 16, 8, 0].map((bits) => (value >>> bits) & 255);
}

function chunk(kind, content) {
  const named = new Uint8Array(4 + content.length);
  named.set(UTF8.encode(kind));
  named.set(content, 4);
  return [Uint8Array.from(number(content.length)), named, Uint8Array.from(number(crc32(named)))];
}

/** International text: keyword, no compression, no language, no translated keyword, UTF-8. */
function text([key, value]) {
  return chunk("iTXt", [...UTF8.encode(key), 0, 0, 0, 0, 0, ...UTF8.encode(value)]);
}

/**
 * @param {Uint8Array} pixels height × width × RGB
 * @param {Record<string, string>} facts
 * @returns {Promise<Blob>}
 */
export async function encode(pixels, width, height, facts) {
  const lines = new Uint8Array(height * (3 * width + 1)); // each begins with its filter: none
  for (let y = 0; y < height; y++) lines.set(pixels.subarray(3 * width * y, 3 * width * (y + 1)), y * (3 * width + 1) + 1);
  const packed = new Blob([lines]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  const header = [...number(width), ...number(height), 8, 2, 0, 0, 0]; // 8 bits, RGB, not interlaced
  const parts = [chunk("IHDR", header), ...Object.entries(facts).map(text), chunk("IDAT", data), chunk("IEND", [])];
  return new Blob([Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), ...parts.flat()], { type: "image/png" });
}

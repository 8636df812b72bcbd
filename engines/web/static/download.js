/** The site's own files, fetched from beside the page and joined where they are in pieces; nothing is fetched from elsewhere. */

const AGAIN = "Copy the whole folder to the server again, and reload the page.";

export class Download {
  #files;
  #onProgress;
  #here = 0;

  /**
   * @param {Record<string, {size: number, pieces: string[]}>} files of model.json
   * @param {(bytes: number) => void} onProgress told how many bytes have come, of all files together
   */
  constructor(files, onProgress) {
    [this.#files, this.#onProgress] = [files, onProgress];
  }

  async json(name) {
    return JSON.parse(new TextDecoder().decode(await this.bytes(name)));
  }

  /** A file's bytes. */
  async bytes(name) {
    const { size, pieces } = this.#files[name];
    const whole = new Uint8Array(size);
    let at = 0;
    for (const piece of pieces) {
      for await (const part of parts(await got(piece))) {
        if (at + part.length > size) throw new Error(`${name} has more than ${size} bytes on the server. ${AGAIN}`);
        whole.set(part, at);
        at += part.length;
        this.#onProgress((this.#here += part.length));
      }
    }
    if (at !== size) throw new Error(`${name} has ${at} bytes on the server instead of ${size}. ${AGAIN}`);
    return whole;
  }
}

/** A response to the request for a file beside the page, or an error in a sentence. */
export async function got(path) {
  const response = await fetch(new URL(path, import.meta.url)).catch((error) => {
    throw new Error(`${path} could not be fetched (${error.message}). Is the server still there? Reload the page.`);
  });
  if (!response.ok) {
    throw new Error(`${path} is not on the server (HTTP ${response.status}). ${AGAIN}`);
  }
  return response;
}

async function* parts(response) {
  const reader = response.body.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
}

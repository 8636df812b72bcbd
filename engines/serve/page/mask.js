// A picture to start from, and a mask that is painted over it: what is painted is made anew.

const PAINT = "rgb(220 40 90 / 0.55)";

export class Mask {
  /** `canvas` shows the picture with the paint over it. */
  constructor(canvas) {
    this.canvas = canvas;
    this.image = null;
    this.paint = document.createElement("canvas");
    this.brush = 24;
    this.erasing = false;
    this.touched = false;
    this.last = null;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel", "pointerleave"]) canvas.addEventListener(name, () => (this.last = null));
  }

  /** Take a file; rejects where the browser cannot read it. */
  async open(file) {
    this.image = await createImageBitmap(file);
    this.file = file;
    for (const each of [this.canvas, this.paint]) [each.width, each.height] = [this.image.width, this.image.height];
    this.clear();
  }

  close() {
    this.image = null;
    this.touched = false;
  }

  clear() {
    this.paint.getContext("2d").clearRect(0, 0, this.paint.width, this.paint.height);
    this.touched = false;
    this.#show();
  }

  /** Take a mask in black and white from a file: white is painted. */
  async openMask(file) {
    const bitmap = await createImageBitmap(file);
    const context = this.paint.getContext("2d");
    context.drawImage(bitmap, 0, 0, this.paint.width, this.paint.height);
    const pixels = context.getImageData(0, 0, this.paint.width, this.paint.height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      pixels.data[at + 3] = pixels.data[at] + pixels.data[at + 1] + pixels.data[at + 2] >= 384 ? 255 : 0;
    }
    context.putImageData(pixels, 0, 0);
    this.touched = true;
    this.#show();
  }

  /** The picture as a PNG, and the mask in black and white, where one was painted. */
  async files() {
    const image = document.createElement("canvas");
    [image.width, image.height] = [this.image.width, this.image.height];
    const context = image.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, image.width, image.height);
    context.drawImage(this.image, 0, 0);
    const found = { image: await blob(image) };
    if (this.touched) {
      const mask = document.createElement("canvas");
      [mask.width, mask.height] = [image.width, image.height];
      const drawn = mask.getContext("2d");
      drawn.drawImage(this.paint, 0, 0);
      drawn.globalCompositeOperation = "source-in";
      drawn.fillStyle = "white";
      drawn.fillRect(0, 0, mask.width, mask.height);
      drawn.globalCompositeOperation = "destination-over";
      drawn.fillStyle = "black";
      drawn.fillRect(0, 0, mask.width, mask.height);
      found.mask = await blob(mask);
    }
    return found;
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale, this.brush * scale];
  }

  #down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.last = this.#at(event);
    this.#stroke(this.last);
  }

  #move(event) {
    if (!this.last) return;
    const next = this.#at(event);
    this.#stroke(next);
    this.last = next;
  }

  #stroke([x, y, width]) {
    const context = this.paint.getContext("2d");
    context.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
    context.strokeStyle = "white";
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(this.last[0], this.last[1]);
    context.lineTo(x, y);
    context.stroke();
    context.globalCompositeOperation = "source-over";
    this.touched = true;
    this.#show();
  }

  #show() {
    if (!this.image) return;
    const tinted = document.createElement("canvas");
    [tinted.width, tinted.height] = [this.paint.width, this.paint.height];
    const paint = tinted.getContext("2d");
    paint.drawImage(this.paint, 0, 0);
    paint.globalCompositeOperation = "source-in";
    paint.fillStyle = PAINT;
    paint.fillRect(0, 0, tinted.width, tinted.height);
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.image, 0, 0);
    context.drawImage(tinted, 0, 0);
  }
}

function blob(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

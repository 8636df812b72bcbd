// The scatter of two quantities, with the line of those that no other beats in both.

const COLOURS = ["#1d6fb8", "#c9742a", "#3a8f5f", "#a8478f", "#8a6d3b", "#5b5fc7", "#c04848", "#2f8f9d", "#7a7f87"];
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 640, HEIGHT = 400, LEFT = 62, BOTTOM = 44, TOP = 12, RIGHT = 14;

function svg(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Where a value lies between two ends, and which values to name; logarithmic where that is asked and can be.
function scale(values, from, to, logarithmic) {
  const asLog = logarithmic && values.every((value) => value > 0);
  const of = asLog ? Math.log10 : (value) => value;
  let low = Math.min(...values.map(of)), high = Math.max(...values.map(of));
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  low -= room; high += room;
  const place = (value) => from + ((of(value) - low) / (high - low)) * (to - from);
  const ticks = [];
  if (asLog) {
    for (let power = Math.floor(low); power <= high; power++) {
      ticks.push(...[1, 2, 5].map((each) => each * 10 ** power).filter((value) => of(value) >= low && of(value) <= high));
    }
  }
  if (ticks.length < 2) {
    const [first, last] = asLog ? [10 ** low, 10 ** high] : [low, high], step = 10 ** Math.floor(Math.log10((last - first) / 3));
    const wide = [1, 2, 5, 10].map((each) => each * step).find((each) => (last - first) / each <= 6);
    ticks.length = 0;
    for (let at = Math.ceil(first / wide) * wide; at <= last; at += wide) ticks.push(at);
  }
  return { place, ticks };
}

function told(value, name) {
  const unit = { latency: [1e3, " ms"], build_time: [1, " s"], memory: [1e-6, " MB"], size: [1e-6, " MB"], parameters: [1e-6, " M"], multiply_adds: [1e-9, " G"] }[name] || [1, ""];
  return Number((value * unit[0]).toPrecision(3)) + unit[1];
}

// Those of which no other is as good in both and better in one, from the cheap to the dear.
function front(points, across, up, quantities) {
  const sign = (name) => (quantities[name].higher_is_better ? 1 : -1);
  const good = (point) => [sign(across) * point.values[across], sign(up) * point.values[up]];
  const beaten = (one) => points.some((other) => {
    const [a, b] = good(one), [c, d] = good(other);
    return c >= a && d >= b && (c > a || d > b);
  });
  return points.filter((point) => !beaten(point)).sort((one, other) => one.values[across] - other.values[across]);
}

function colours(data, axis) {
  return new Map(data.axes[axis].map((level, index) => [level, COLOURS[index % COLOURS.length]]));
}

function draw(data, state, points, choose) {
  const { up, across, colour, logarithmic } = state;
  const known = points.filter((point) => point.values[up] !== null && point.values[across] !== null);
  const plot = document.getElementById("plot"), legend = document.getElementById("legend");
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": `${up} over ${across}` });
  plot.replaceChildren(picture);
  legend.replaceChildren();
  if (!known.length) {
    picture.append(svg("text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "no point has both"));
    return;
  }
  const bounds = known.flatMap((point) => point.intervals[up] || []);
  const x = scale(known.map((point) => point.values[across]), LEFT, WIDTH - RIGHT, logarithmic);
  const y = scale([...known.map((point) => point.values[up]), ...bounds], HEIGHT - BOTTOM, TOP, false);
  for (const tick of x.ticks) {
    const at = x.place(tick);
    picture.append(svg("line", { class: "grid", x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }));
    picture.append(svg("text", { x: at, y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, told(tick, across)));
  }
  for (const tick of y.ticks) {
    const at = y.place(tick);
    picture.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }));
    picture.append(svg("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, told(tick, up)));
  }
  picture.append(svg("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, data.quantities[across].label));
  picture.append(svg("text", { x: -(HEIGHT - BOTTOM) / 2, y: 12, transform: "rotate(-90)", "text-anchor": "middle" }, data.quantities[up].label));
  const best = front(known, across, up, data.quantities);
  picture.append(svg("polyline", { class: "front", points: best.map((point) => `${x.place(point.values[across])},${y.place(point.values[up])}`).join(" ") }));
  const paint = colours(data, colour), tip = document.getElementById("tip");
  const dots = [...known].sort((one, other) => (one === state.selected) - (other === state.selected));
  for (const point of dots) {
    const at = { cx: x.place(point.values[across]), cy: y.place(point.values[up]) }, fill = paint.get(point.levels[colour]);
    const spread = point.intervals[up];
    if (spread) picture.append(svg("line", { class: "bar", stroke: fill, x1: at.cx, x2: at.cx, y1: y.place(spread[0]), y2: y.place(spread[1]) }));
    const dot = svg("circle", { ...at, r: best.includes(point) ? 6.5 : 5, fill, tabindex: 0, role: "button", "data-point": point.index, "aria-label": point.name });
    if (point === state.selected) dot.classList.add("selected");
    dot.addEventListener("click", () => choose(point));
    dot.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(point); });
    dot.addEventListener("pointerenter", (event) => {
      tip.textContent = `${point.name}\n${data.quantities[up].label} ${point.texts[up]}\n${data.quantities[across].label} ${point.texts[across]}`;
      tip.hidden = false;
      const reach = Math.min(event.pageX + 14, document.documentElement.clientWidth - tip.offsetWidth - 8);
      tip.style.left = `${Math.max(0, reach)}px`;
      tip.style.top = `${event.pageY + 14}px`;
    });
    dot.addEventListener("pointerleave", () => { tip.hidden = true; });
    picture.append(dot);
    if (data.chosen.includes(point.index)) picture.append(svg("circle", { ...at, r: 10, class: "ring" }));
  }
  for (const level of data.axes[colour]) {
    const entry = document.createElement("span"), dot = document.createElement("i");
    dot.style.background = paint.get(level);
    entry.append(dot, level);
    legend.append(entry);
  }
}

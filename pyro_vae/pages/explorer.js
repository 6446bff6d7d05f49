"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const { size, latent, entries } = page;
const image = page.image; // [height, width, channels], or null for vectors
const Stored = image ? Uint8Array : Float32Array;
const stored = (text) => decodeBase64(text, Stored);
const means = decodeBase64(page.means, Float32Array);
const covariances = decodeBase64(page.covariances, Float32Array);
const prior = decodeBase64(page.prior, Float32Array);
const data = stored(page.data);
const row = (table, i, width) => table.subarray(i * width, (i + 1) * width);
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const run = page.steps ? compile(page.steps) : null;
const tiles = page.grid ? stored(page.grid.values) : null;
const reconstructions = page.grid ? stored(page.grid.reconstructions) : null;

const average = Float64Array.from({ length: latent }, (_, j) => {
  let sum = 0;
  for (let i = 0; i < size; i++) sum += means[i * latent + j];
  return sum / size;
});
const state = { pinned: average, preview: null, chosen: -1, across: 0, up: page.directions.length > 1 ? 1 : -1 };
let view = null;

// Numbers

function place(z, i = -1) {
  const a = dot(page.directions[state.across].vector, z);
  if (state.up >= 0) return [a, dot(page.directions[state.up].vector, z)];
  return [a, i < 0 ? 0 : ((i * 0.618034) % 1) - 0.5]; // one latent: spread out, so that data can be told apart
}

// Move z within the plane of the two directions, to where its coordinates there are a and b.
function moved(z, a, b) {
  const u = page.directions[state.across].vector;
  const da = a - dot(u, z);
  if (state.up < 0) return z.map((value, j) => value + da * u[j]);
  const v = page.directions[state.up].vector;
  const db = b - dot(v, z), uv = dot(u, v), left = 1 - uv * uv;
  const s = (da - uv * db) / left, t = (db - uv * da) / left;
  return Float64Array.from(z, (value, j) => value + s * u[j] + t * v[j]);
}

function decode(z) {
  if (run) return run(z);
  const [a, b] = place(z), { count, across, up } = page.grid;
  const cell = (value, [low, high]) =>
    Math.min(count - 1, Math.max(0, Math.round(((value - low) / (high - low)) * (count - 1))));
  const scale = image ? 255 : 1;
  return Float64Array.from(row(tiles, cell(b, up) * count + cell(a, across), entries), (value) => value / scale);
}

function reconstruct(i) {
  if (run) return run(row(means, i, latent));
  return Float64Array.from(row(reconstructions, i, entries), (value) => value / (image ? 255 : 1));
}

function spread(i) {
  const s = row(covariances, i, latent * latent), u = page.directions[state.across].vector;
  const form = (a, b) => dot(a, Float64Array.from(a, (_, j) => dot(b, s.subarray(j * latent, (j + 1) * latent))));
  if (state.up < 0) return [Math.sqrt(form(u, u)), 0, 0];
  const v = page.directions[state.up].vector, uu = form(u, u), vu = form(v, u);
  const first = Math.sqrt(Math.max(uu, 1e-30));
  return [first, vu / first, Math.sqrt(Math.max(form(v, v) - (vu / first) ** 2, 0))];
}

const deviation = (i, j) => Math.sqrt(covariances[(i * latent + j) * latent + j]);
const number = (x) => (Object.is(x, -0) || Math.abs(x) < 0.005 ? "0.00" : x.toFixed(2)).replace("-", "\u2212");

// The map

function svg(name, attributes, parent, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent?.append(node);
  return node;
}

const MARKS = {
  o: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z", "^": "M0-6L5.6 4.6H-5.6Z", s: "M-4.6-4.6H4.6V4.6H-4.6Z",
  v: "M0 6L5.6-4.6H-5.6Z", D: "M0-6L6 0L0 6L-6 0Z", P: "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
};

// Class by its rank, as in the figures; labels of many values have one look.
function look(label) {
  const rank = page.classes.indexOf(label);
  const at = Math.max(rank, 0), colour = page.colours[at % page.colours.length];
  // black is not seen on a dark page
  return { d: MARKS[page.markers[at % page.markers.length]], fill: colour === "#000000" ? "var(--ink)" : colour };
}

function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(+(k * step).toPrecision(10));
  return found;
}

function range(values) {
  const low = Math.min(...values), high = Math.max(...values), pad = 0.08 * (high - low || 1);
  return [low - pad, high + pad];
}

function drawMap() {
  const map = find("map");
  const { width, height } = map.getBoundingClientRect();
  map.setAttribute("viewBox", `0 0 ${width} ${height}`);
  map.replaceChildren();
  const points = Array.from({ length: size }, (_, i) => place(row(means, i, latent), i));
  // every ellipse has room
  const spreads = points.map((_, i) => spread(i));
  const reach = (at, far) => range(points.flatMap((p, i) => [p[at] - 2 * far(spreads[i]), p[at] + 2 * far(spreads[i])]));
  const [x0, x1] = reach(0, (s) => s[0]), [y0, y1] = state.up < 0 ? [-0.6, 0.6] : reach(1, (s) => Math.hypot(s[1], s[2]));
  const box = { left: 58, right: width - 8, top: 8, bottom: height - 40 };
  const x = (a) => box.left + ((a - x0) / (x1 - x0)) * (box.right - box.left);
  const y = (b) => box.bottom - ((b - y0) / (y1 - y0)) * (box.bottom - box.top);
  view = { x, y, x0, x1, y0, y1, box };
  for (const at of ticks(x0, x1, width / 70)) {
    svg("line", { class: "grid", x1: x(at), x2: x(at), y1: box.top, y2: box.bottom }, map);
    svg("text", { x: x(at), y: box.bottom + 16, "text-anchor": "middle" }, map, String(at).replace("-", "\u2212"));
  }
  for (const at of state.up < 0 ? [] : ticks(y0, y1, height / 70)) {
    svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(at), y2: y(at) }, map);
    svg("text", { x: box.left - 7, y: y(at) + 4, "text-anchor": "end" }, map, String(at).replace("-", "\u2212"));
  }
  const middle = [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
  const named = { class: "name", "text-anchor": "middle" };
  svg("text", { ...named, x: middle[0], y: height - 5 }, map, page.directions[state.across].name);
  if (state.up >= 0) {
    const turn = `translate(13 ${middle[1]}) rotate(-90)`;
    svg("text", { ...named, transform: turn }, map, page.directions[state.up].name);
  }
  const clip = svg("clipPath", { id: "inside" }, map), wide = box.right - box.left, high = box.bottom - box.top;
  svg("rect", { x: box.left, y: box.top, width: wide, height: high }, clip);
  const inside = svg("g", { "clip-path": "url(#inside)" }, map);
  const grow = size > 150 ? 0.8 : 1;
  points.forEach(([a, b], i) => {
    const where = `translate(${x(a).toFixed(1)} ${y(b).toFixed(1)}) scale(${grow})`;
    svg("path", { class: "datum", ...look(page.labels?.[i]), transform: where, "data-datum": i }, inside);
  });
  view.points = points;
  view.over = svg("g", {}, inside);
  drawOver();
}

function drawOver() {
  const { x, y, over } = view;
  over.replaceChildren();
  if (state.chosen >= 0) {
    const [a, b] = view.points[state.chosen], [s, t, r] = spread(state.chosen);
    const edge = Array.from({ length: 73 }, (_, k) => {
      const angle = (k * Math.PI) / 36, c = 2 * Math.cos(angle), d = 2 * Math.sin(angle);
      return `${x(a + s * c).toFixed(2)} ${(state.up < 0 ? y(b) + 3 * d : y(b + t * c + r * d)).toFixed(2)}`;
    });
    svg("path", { class: "spread", d: `M${edge.join("L")}Z` }, over);
    svg("circle", { class: "mean", cx: x(a), cy: y(b), r: 9 }, over);
  }
  const [a, b] = place(state.preview ?? state.pinned, state.preview ? -1 : state.chosen);
  const cross = { d: `M${x(a) - 11} ${y(b)}h8m6 0h8M${x(a)} ${y(b) - 11}v8m0 6v8` };
  svg("path", { class: "halo", ...cross }, over);
  svg("path", { class: "cross", ...cross }, over);
}

// Tiles

function paint(canvas, x) {
  if (image) {
    const [height, width, channels] = image;
    Object.assign(canvas, { width, height });
    canvas.classList.toggle("smooth", Math.max(height, width) < 16);
    const pixels = new ImageData(width, height), plane = height * width;
    for (let i = 0; i < plane; i++) {
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = 255 * x[(c % channels) * plane + i];
      pixels.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return;
  }
  Object.assign(canvas, { width: 720, height: 260 });
  const pen = canvas.getContext("2d"), [low, high] = page.range;
  const y = (value) => 250 - ((value - low) / (high - low || 1)) * 240;
  pen.fillStyle = getComputedStyle(document.body).getPropertyValue("--accent");
  const step = 720 / entries, zero = y(Math.min(Math.max(0, low), high));
  x.forEach((value, i) => {
    const top = Math.min(y(value), zero);
    pen.fillRect(i * step + 0.1 * step, top, 0.8 * step, Math.max(1, Math.abs(y(value) - zero)));
  });
}

// Facts and sliders

function weights(k) {
  if (k === null) return "unknown";
  const told = k > 0.7 ? "not reliable here" : k > 0.5 ? "usable here" : "reliable here";
  return `${number(k)}, importance sampling is ${told}`;
}

function tell(facts) {
  find("facts").replaceChildren();
  for (const [name, value] of Object.entries(facts)) {
    const [dt, dd] = ["dt", "dd"].map((tag) => document.createElement(tag));
    dt.textContent = name;
    dd.textContent = value;
    find("facts").append(dt, dd);
  }
}

function drawChosen() {
  const i = state.chosen;
  for (const id of ["datum", "reconstruction"]) find(id).parentNode.classList.toggle("empty", i < 0);
  const caption = find("datum").nextElementSibling;
  if (i < 0) {
    caption.textContent = "Datum x";
    find("datum").width = find("reconstruction").width = image ? image[1] : 720;
    find("datum").height = find("reconstruction").height = image ? image[0] : 260;
    tell({ "No datum is chosen.": "" });
  } else {
    caption.textContent = `Datum ${page.rows[i]}`;
    paint(find("datum"), Float64Array.from(row(data, i, entries), (value) => value / (image ? 255 : 1)));
    paint(find("reconstruction"), reconstruct(i));
    const label = page.labels ? { label: String(page.labels[i]) } : {};
    const evidence = page.evidence[i] === null ? "unknown" : `${number(page.evidence[i])} nats`;
    tell({ datum: String(page.rows[i]), ...label, "log p(x)": evidence, "k\u0302": weights(page.tails[i]) });
  }
  document.querySelectorAll(".band").forEach((band, j) => {
    band.hidden = i < 0;
    if (i < 0) return;
    const input = band.nextElementSibling, low = +input.min, wide = input.max - low;
    const [m, s] = [means[i * latent + j], deviation(i, j)];
    const [from, to] = [m - 2 * s, m + 2 * s].map((v) => Math.min(1, Math.max(0, (v - low) / wide)));
    // the middle of the thumb stays half of its width, 8 pixels, away from both ends
    band.style.left = `calc(8px + (100% - 16px) * ${from})`;
    band.style.width = `calc(max(3px, (100% - 16px) * ${to - from}))`;
  });
}

function makeSliders() {
  for (let j = 0; j < latent; j++) {
    let most = 1;
    for (let i = 0; i < size; i++) most = Math.max(most, Math.abs(means[i * latent + j]) + 2 * deviation(i, j));
    const line = document.createElement("div"), name = page.names[j];
    line.className = "slider";
    const [label, track, output] = ["label", "div", "output"].map((tag) => document.createElement(tag));
    const input = document.createElement("input"), band = document.createElement("div");
    Object.assign(input, { type: "range", min: -most, max: most, step: most / 500, id: `z${j}` });
    Object.assign(label, { textContent: name, htmlFor: input.id });
    Object.assign(band, { className: "band", hidden: true });
    track.className = "track";
    input.addEventListener("input", () => {
      state.pinned = Float64Array.from(state.pinned);
      state.pinned[j] = +input.value;
      drawPoint();
    });
    track.append(band, input);
    line.append(label, track, output);
    find("sliders").append(line);
  }
}

let waiting = false;
function drawPoint() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const z = state.preview ?? state.pinned;
    drawOver();
    paint(find("drawn"), decode(z));
    document.querySelectorAll(".slider").forEach((line, j) => {
      line.querySelector("input").value = z[j];
      line.querySelector("output").textContent = number(z[j]);
    });
  });
}

function pin(z) {
  state.pinned = z;
  state.preview = null;
  drawPoint();
}

function choose(i) {
  state.chosen = i;
  drawChosen();
  pin(i < 0 ? state.pinned : Float64Array.from(row(means, i, latent)));
}

function nearest([px, py], within) {
  let found = -1, least = within;
  view.points.forEach(([a, b], i) => {
    const far = Math.hypot(view.x(a) - px, view.y(b) - py);
    if (far < least) [found, least] = [i, far];
  });
  return found;
}

function listen() {
  const map = find("map");
  const pixel = (event) => {
    const box = map.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const under = ([px, py]) => {
    const { box, x0, x1, y0, y1 } = view;
    const a = x0 + ((px - box.left) / (box.right - box.left)) * (x1 - x0);
    return moved(state.pinned, a, y0 + ((box.bottom - py) / (box.bottom - box.top)) * (y1 - y0));
  };
  map.addEventListener("pointermove", (event) => {
    state.preview = under(pixel(event));
    drawPoint();
  });
  map.addEventListener("pointerleave", () => pin(state.pinned));
  map.addEventListener("click", (event) => {
    const at = pixel(event), i = nearest(at, 14);
    if (i >= 0) choose(i);
    else pin(under(at));
  });
  map.addEventListener("pointerup", (event) => {
    if (event.pointerType !== "mouse" && state.preview) pin(state.preview);
  });
  map.addEventListener("keydown", (event) => {
    const [right, up] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] ?? [];
    const z = state.preview ?? state.pinned, [a, b] = place(z), step = event.shiftKey ? 0.1 : 0.02;
    if (right !== undefined) pin(moved(z, a + right * step * (view.x1 - view.x0), b + up * step * (view.y1 - view.y0)));
    else if (event.key === "Enter") choose(nearest([view.x(a), view.y(b)], Infinity));
    else if (event.key === "Escape") choose(-1);
    else return;
    event.preventDefault();
  });
  for (const [name, by] of [["previous", -1], ["next", 1]]) {
    find(name).addEventListener("click", () => choose((Math.max(state.chosen, by < 0 ? 0 : -1) + by + size) % size));
  }
  let drawn = 0;
  find("draw").addEventListener("click", () => pin(Float64Array.from(row(prior, drawn++ % page.draws, latent))));
  for (const name of ["across", "up"]) {
    find(name).addEventListener("change", () => {
      const other = name === "up" ? "across" : "up", value = +find(name).value;
      if (state[other] === value) find(other).value = state[other] = state[name]; // the two change places
      state[name] = value;
      drawMap();
      drawPoint();
    });
  }
}

function start() {
  find("title").textContent = page.title;
  find("about").textContent = page.about;
  find("foot").textContent = page.foot;
  find("tiles").classList.toggle("bars", !image);
  if (page.directions.length < 3 || !run) find("axes").style.display = "none";
  for (const name of ["across", "up"]) {
    page.directions.forEach((d, i) => find(name).append(new Option(d.name, i, false, i === state[name])));
  }
  for (const label of page.classes) {
    const item = document.createElement("li");
    svg("path", look(label), svg("svg", { viewBox: "-7 -7 14 14", width: 14, height: 14 }, item));
    item.append(String(label));
    find("legend").append(item);
  }
  if (run) makeSliders();
  else find("sliders").textContent = "This decoder was run in advance, on a grid in the plane of the map.";
  find("draw").hidden = !run;
  drawMap();
  drawChosen();
  drawPoint();
  listen();
  new ResizeObserver(drawMap).observe(find("map"));
}

start();

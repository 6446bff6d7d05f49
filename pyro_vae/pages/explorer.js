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
const [low, high] = page.range; // of the data
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

// One example, or one mean of p(x|z), with images converted from bytes to their own scale.
function shown(table, i) {
  return Float64Array.from(row(table, i, entries), (value) => (image ? low + (value / 255) * (high - low) : value));
}

function decode(z) {
  if (run) return run(z);
  const [a, b] = place(z), { count, across, up } = page.grid;
  const cell = (value, [first, last]) =>
    Math.min(count - 1, Math.max(0, Math.round(((value - first) / (last - first)) * (count - 1))));
  return shown(tiles, cell(b, up) * count + cell(a, across));
}

function reconstruct(i) {
  return run ? run(row(means, i, latent)) : shown(reconstructions, i);
}

const std = (i, j) => Math.sqrt(covariances[(i * latent + j) * latent + j]);
const number = (x) => (Object.is(x, -0) || Math.abs(x) < 0.005 ? "0.00" : x.toFixed(2)).replace("-", "\u2212");

// Facts and sliders

function paretoText(k) {
  if (k === null) return "unknown";
  const verdict = k > 0.7 ? "not reliable here" : k > 0.5 ? "usable here" : "reliable here";
  return `${number(k)}, importance sampling is ${verdict}`;
}

function showFacts(facts) {
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
  for (const id of ["example", "reconstruction"]) find(id).parentNode.classList.toggle("empty", i < 0);
  const caption = find("example").nextElementSibling;
  if (i < 0) {
    caption.textContent = "Example x";
    find("example").width = find("reconstruction").width = image ? image[1] : 720;
    find("example").height = find("reconstruction").height = image ? image[0] : 260;
    showFacts({ "No example is selected.": "" });
  } else {
    caption.textContent = `Example ${page.rows[i]}`;
    if (!page.columns) {
      paint(find("example"), shown(data, i));
      paint(find("reconstruction"), reconstruct(i));
    }
    const label = page.labels ? { label: String(page.labels[i]) } : {};
    const evidence = page.evidence[i] === null ? "unknown" : `${number(page.evidence[i])} nats`;
    showFacts({ example: String(page.rows[i]), ...label, "log p(x)": evidence, "k\u0302": paretoText(page.tails[i]) });
  }
  document.querySelectorAll(".band").forEach((band, j) => {
    band.hidden = i < 0;
    if (i < 0) return;
    const input = band.nextElementSibling, least = +input.min, wide = input.max - least;
    const [m, s] = [means[i * latent + j], std(i, j)];
    const [from, to] = [m - 2 * s, m + 2 * s].map((v) => Math.min(1, Math.max(0, (v - least) / wide)));
    // the middle of the thumb keeps a distance of 8 pixels, half its width, from both ends
    band.style.left = `calc(8px + (100% - 16px) * ${from})`;
    band.style.width = `calc(max(3px, (100% - 16px) * ${to - from}))`;
  });
}

function makeSliders() {
  for (let j = 0; j < latent; j++) {
    let most = 1;
    for (let i = 0; i < size; i++) most = Math.max(most, Math.abs(means[i * latent + j]) + 2 * std(i, j));
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
    (page.columns ? paintTable : paint)(find("decoded"), decode(z));
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
  let next = 0;
  find("sample").addEventListener("click", () => pin(Float64Array.from(row(prior, next++ % page.num_prior_samples, latent))));
  for (const name of ["across", "up"]) {
    find(name).addEventListener("change", () => {
      const other = name === "up" ? "across" : "up", value = +find(name).value;
      if (state[other] === value) find(other).value = state[other] = state[name]; // swap the two directions
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
  if (page.columns) {
    for (const id of ["example", "reconstruction"]) find(id).parentNode.hidden = true;
    find("tiles").classList.add("table");
    find("decoded").nextElementSibling.textContent =
      "Each column on its own scale, in its own units: decoder at z (bar), example x (dot), its reconstruction (ring)";
  }
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
  else find("sliders").textContent = "This decoder was run in advance on a grid in the plane of the map.";
  find("sample").hidden = !run;
  drawMap();
  drawChosen();
  drawPoint();
  listen();
  new ResizeObserver(drawMap).observe(find("map"));
}

start();

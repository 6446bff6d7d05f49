"use strict";
// The map of explorer.js: a plane through the latent space, the examples, the point z, and the spread of q(z|x).

function place(z, i = -1) {
  const a = dot(page.directions[state.across].vector, z);
  if (state.up >= 0) return [a, dot(page.directions[state.up].vector, z)];
  return [a, i < 0 ? 0 : ((i * 0.618034) % 1) - 0.5]; // one latent: examples are spread out vertically
}

// Move z in the plane of the two directions, so that its coordinates there are a and b.
function moved(z, a, b) {
  const u = page.directions[state.across].vector;
  const da = a - dot(u, z);
  if (state.up < 0) return z.map((value, j) => value + da * u[j]);
  const v = page.directions[state.up].vector;
  const db = b - dot(v, z), uv = dot(u, v), left = 1 - uv * uv;
  if (left < 1e-6) return z.map((value, j) => value + da * u[j]); // both directions are the same
  const s = (da - uv * db) / left, t = (db - uv * da) / left;
  return Float64Array.from(z, (value, j) => value + s * u[j] + t * v[j]);
}

function spread(i) {
  const s = row(covariances, i, latent * latent), u = page.directions[state.across].vector;
  const form = (a, b) => dot(a, Float64Array.from(a, (_, j) => dot(b, s.subarray(j * latent, (j + 1) * latent))));
  if (state.up < 0) return [Math.sqrt(form(u, u)), 0, 0];
  const v = page.directions[state.up].vector, uu = form(u, u), vu = form(v, u);
  const first = Math.sqrt(Math.max(uu, 1e-30));
  return [first, vu / first, Math.sqrt(Math.max(form(v, v) - (vu / first) ** 2, 0))];
}

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

// Marker and colour of a class by its rank, as in the figures; all the same for labels of many values.
function look(label) {
  const rank = page.classes.indexOf(label);
  const at = Math.max(rank, 0), colour = page.colours[at % page.colours.length];
  // black is invisible on a dark page
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
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  const pad = 0.08 * (high - low || 1);
  return [low - pad, high + pad];
}

function drawMap() {
  const map = find("map");
  const { width, height } = map.getBoundingClientRect();
  map.setAttribute("viewBox", `0 0 ${width} ${height}`);
  map.replaceChildren();
  const points = Array.from({ length: size }, (_, i) => place(row(means, i, latent), i));
  // leave room for every ellipse
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
    svg("path", { class: "example", ...look(page.labels?.[i]), transform: where, "data-example": i }, inside);
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

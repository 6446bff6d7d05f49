"use strict";
// The tiles of explorer.js: the decoder at z, the chosen example and its reconstruction.

// One line per column of a table: its name, and on its own scale the decoder at z, the example and its reconstruction.
function paintTable(canvas, x) {
  const ratio = window.devicePixelRatio || 1, line = 24, wide = canvas.clientWidth || 480, tall = line * entries;
  Object.assign(canvas, { width: Math.round(wide * ratio), height: Math.round(tall * ratio) });
  canvas.style.height = `${tall}px`;
  const pen = canvas.getContext("2d"), style = getComputedStyle(document.body);
  const colour = (name) => style.getPropertyValue(name);
  const [from, to] = [0.5 * wide, 0.82 * wide];
  const marks = [[x, "bar"]];
  if (state.chosen >= 0) marks.push([shown(data, state.chosen), "dot"], [reconstruct(state.chosen), "ring"]);
  pen.scale(ratio, ratio);
  pen.font = `13px ${style.fontFamily}`;
  pen.textBaseline = "middle";
  page.columns.forEach(({ name, ends, words }, i) => {
    const y = line * (i + 0.5);
    const write = (text, at, align, room, ink) => {
      Object.assign(pen, { fillStyle: colour(ink), textAlign: align });
      pen.fillText(text, at, y, room);
    };
    write(name, 4, "left", 0.3 * wide - 8, "--ink");
    write(words[0], from - 10, "right", 0.2 * wide - 14, "--quiet");
    write(words[1], to + 10, "left", 0.18 * wide - 14, "--quiet");
    pen.fillStyle = colour("--line");
    pen.fillRect(from, y - 1, to - from, 2);
    for (const [values, form] of marks) {
      const share = Math.min(1, Math.max(0, (values[i] - ends[0]) / (ends[1] - ends[0]))), at = from + share * (to - from);
      pen.fillStyle = colour(form === "bar" ? "--accent" : "--ink");
      if (form === "bar") {
        pen.fillRect(at - 3, y - 9, 6, 18);
        continue;
      }
      pen.beginPath();
      pen.arc(at, y, form === "dot" ? 4 : 7, 0, 2 * Math.PI);
      if (form === "dot") pen.fill();
      else Object.assign(pen, { strokeStyle: colour("--ink"), lineWidth: 2 }).stroke();
    }
  });
}

function paint(canvas, x) {
  if (image) {
    const [height, width, channels] = image;
    Object.assign(canvas, { width, height });
    canvas.classList.toggle("smooth", Math.max(height, width) < 16);
    const pixels = new ImageData(width, height), plane = height * width;
    for (let i = 0; i < plane; i++) {
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = (255 * (x[(c % channels) * plane + i] - low)) / (high - low);
      pixels.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return;
  }
  Object.assign(canvas, { width: 720, height: 260 });
  const pen = canvas.getContext("2d");
  const y = (value) => 250 - ((value - low) / (high - low || 1)) * 240;
  pen.fillStyle = getComputedStyle(document.body).getPropertyValue("--accent");
  const step = 720 / entries, zero = y(Math.min(Math.max(0, low), high));
  x.forEach((value, i) => {
    const top = Math.min(y(value), zero);
    pen.fillRect(i * step + 0.1 * step, top, 0.8 * step, Math.max(1, Math.abs(y(value) - zero)));
  });
}

"use strict";
// Run the steps that array_program.py compiles: each step makes one flat array.

const ENTRYWISE = {
  abs: Math.abs, ceil: Math.ceil, cos: Math.cos, exp: Math.exp, expm1: Math.expm1, floor: Math.floor, log: Math.log,
  log1p: Math.log1p, sign: Math.sign, sin: Math.sin, sqrt: Math.sqrt, tanh: Math.tanh,
  neg: (x) => -x,
  relu: (x) => Math.max(x, 0),
  reciprocal: (x) => 1 / x,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  erf,
  add: (x, y) => x + y,
  sub: (x, y) => x - y,
  mul: (x, y) => x * y,
  div: (x, y) => x / y,
  pow: Math.pow, maximum: Math.max, minimum: Math.min,
  lt: (x, y) => +(x < y),
  le: (x, y) => +(x <= y),
  gt: (x, y) => +(x > y),
  ge: (x, y) => +(x >= y),
  eq: (x, y) => +(x === y),
  ne: (x, y) => +(x !== y),
  where: (mask, x, y) => (mask ? x : y),
};

const REDUCTIONS = {
  sum: (row) => row.reduce((a, b) => a + b, 0),
  mean: (row) => row.reduce((a, b) => a + b, 0) / row.length,
  max: (row) => row.reduce((a, b) => Math.max(a, b), -Infinity),
};

const STEPS = {
  take(arrays, [sources, index]) {
    const all = sources.length === 1 ? arrays[sources[0]] : sources.flatMap((s) => Array.from(arrays[s]));
    return Float64Array.from(index, (i) => all[i]);
  },
  linear(arrays, [from, weight, bias]) {
    const x = arrays[from], w = arrays[weight];
    return Float64Array.from(arrays[bias], (sum, row) => {
      for (let i = 0, at = row * x.length; i < x.length; i++, at++) sum += w[at] * x[i];
      return sum;
    });
  },
  convolution(arrays, [from, weight, bias, form]) {
    const x = arrays[from], w = arrays[weight], b = arrays[bias];
    const [channels, height, width] = form.from, [filters, rows, columns] = form.to;
    const out = Float64Array.from({ length: filters * rows * columns }, (_, i) => b[Math.floor(i / (rows * columns))]);
    const [high, wide] = form.kernel, taps = high * wide;
    // loop over the side with strides; each tap falls on the other side
    const [small, large] = form.transposed ? [form.from, form.to] : [form.to, form.from];
    for (let tap = 0; tap < taps; tap++) {
      const down = Math.floor(tap / wide) * form.dilation[0] - form.padding[0];
      const right = (tap % wide) * form.dilation[1] - form.padding[1];
      for (let i = 0; i < small[1]; i++) {
        const row = i * form.stride[0] + down;
        if (row < 0 || row >= large[1]) continue;
        for (let j = 0; j < small[2]; j++) {
          const column = j * form.stride[1] + right;
          if (column < 0 || column >= large[2]) continue;
          const near = i * small[2] + j, far = row * large[2] + column;
          const [read, write] = form.transposed ? [near, far] : [far, near];
          for (let c = 0; c < channels; c++) {
            const value = x[c * height * width + read];
            for (let f = 0; f < filters; f++) {
              const at = form.transposed ? (c * filters + f) * taps + tap : (f * channels + c) * taps + tap;
              out[f * rows * columns + write] += w[at] * value;
            }
          }
        }
      }
    }
    return out;
  },
};

// A power series near 0, the continued fraction of the complement elsewhere.
function erf(x) {
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size < 2.5) {
    let term = x, sum = x;
    for (let n = 1; n < 60; n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = size;
  for (let n = 60; n > 0; n--) fraction = size + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-size * size) / (Math.sqrt(Math.PI) * fraction));
}

function decodeBase64(text, Type) {
  return new Type(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}

// Return the function that the steps describe; constants are decoded once.
function compile(steps) {
  const constants = steps.map(([name, text]) => (name === "constant" ? decodeBase64(text, Float32Array) : null));
  return (input) => {
    const arrays = [];
    steps.forEach(([name, ...args], at) => {
      if (name === "input") arrays.push(Float64Array.from(input));
      else if (name === "constant") arrays.push(constants[at]);
      else if (name in STEPS) arrays.push(STEPS[name](arrays, args));
      else if (name in REDUCTIONS) {
        const x = arrays[args[0]], size = args[1];
        const rows = Array.from({ length: x.length / size }, (_, i) => x.subarray(i * size, (i + 1) * size));
        arrays.push(Float64Array.from(rows, REDUCTIONS[name]));
      } else arrays.push(entrywise(ENTRYWISE[name], args.map((a) => arrays[a])));
    });
    return arrays[arrays.length - 1];
  };
}

function entrywise(f, operands) {
  const length = Math.max(...operands.map((x) => x.length));
  const [x, y, z] = operands.map((o) => (o.length === 1 && length > 1 ? new Float64Array(length).fill(o[0]) : o));
  const out = new Float64Array(length);
  if (z) for (let i = 0; i < length; i++) out[i] = f(x[i], y[i], z[i]);
  else if (y) for (let i = 0; i < length; i++) out[i] = f(x[i], y[i]);
  else for (let i = 0; i < length; i++) out[i] = f(x[i]);
  return out;
}

"use strict";

// A fully connected classifier, as page.py writes it: images in [0, 1], flattened, to logits.
// A layer {kernel, bias, relu} is y = x W + b, with W row by row, and where relu says so max(y, 0).
// Sums are taken in float64.

// The numbers behind a base64 text of float32, little-endian.
function decode(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

function opened(network) {
  const layers = network.layers.map((layer) => {
    const [kernel, bias] = [decode(layer.kernel), decode(layer.bias)];
    const [outputs, sizes] = [bias.length, [kernel.map(Math.abs), bias.map(Math.abs)]];
    return { kernel, bias, sizes, inputs: kernel.length / outputs, outputs, relu: layer.relu };
  });
  return { ...network, layers };
}

function affine({ inputs, outputs }, x, kernel, bias) {
  const y = Float64Array.from(bias);
  for (let i = 0, at = 0; i < inputs; i++, at += outputs) {
    const value = x[i];
    if (value === 0) continue;
    for (let j = 0; j < outputs; j++) y[j] += value * kernel[at + j];
  }
  return y;
}

// What goes into each layer, and last the logits.
function forward(network, x) {
  const values = [x];
  for (const layer of network.layers) {
    const y = affine(layer, values.at(-1), layer.kernel, layer.bias);
    values.push(layer.relu ? y.map((value) => Math.max(value, 0)) : y);
  }
  return values;
}

const logits = (network, x) => forward(network, x).at(-1);

// The gradient of Σ g_k z_k by the image, where `values` are those of `forward`.
function gradient({ layers }, values, g) {
  for (let l = layers.length - 1; l >= 0; l--) {
    const { kernel, inputs, outputs, relu } = layers[l];
    if (relu) g = g.map((value, j) => (values[l + 1][j] > 0 ? value : 0));
    const back = new Float64Array(inputs);
    for (let i = 0, at = 0; i < inputs; i++, at += outputs) {
      let sum = 0;
      for (let j = 0; j < outputs; j++) sum += kernel[at + j] * g[j];
      back[i] = sum;
    }
    g = back;
  }
  return g;
}

function softmax(z) {
  const highest = Math.max(...z);
  const powers = z.map((value) => Math.exp(value - highest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

// The class with the highest logit; of several, the first.
const answer = (z) => z.indexOf(Math.max(...z));

// Interval bounds (Gowal et al. 2019, section 3): all images within eps of x, a box of centre c and
// radius r, go through the network layer by layer.  As in method2_fgsm/robust/bounds.py each layer
// makes its box wider by what float32 rounds there, here by a little more.

const UNIT = 2 ** -24; // half of the distance from 1 to the next number of float32
const FEW = 64; // roundings of a layer beside those of its sums

const roundings = ({ inputs }) => ((inputs + FEW) * UNIT) / (1 - (inputs + FEW) * UNIT);

function between(low, high) {
  return { c: low.map((a, i) => (a + high[i]) / 2), r: low.map((a, i) => (high[i] - a) / 2) };
}

function wider({ c, r }, part) {
  return { c, r: r.map((radius, i) => radius + part * (Math.abs(c[i]) + radius) + 1e-30) };
}

function through(layer, box) {
  const part = roundings(layer);
  const { c, r } = wider(box, part);
  const [kernel, bias] = layer.sizes;
  const middle = affine(layer, c, layer.kernel, layer.bias);
  const radius = affine(layer, r, kernel, bias.map((b) => part * b));
  const [low, high] = [-1, 1].map((side) => middle.map((value, j) => value + side * radius[j]));
  const positive = (value) => (layer.relu ? Math.max(value, 0) : value);
  return wider(between(low.map(positive), high.map(positive)), FEW * UNIT);
}

// Whether every image in [0, 1] within eps of x is a y.
function proven({ layers }, x, y, eps) {
  const low = x.map((value) => Math.max(value - eps - 2 * UNIT, 0));
  const high = x.map((value) => Math.min(value + eps + 2 * UNIT, 1));
  const last = layers.at(-1);
  let box = between(low, high);
  for (const layer of layers.slice(0, -1)) box = through(layer, box);
  const { c, r } = box;
  const z = affine(last, c, last.kernel, last.bias);
  // How far a logit of float32 can be from the exact one.
  const reach = affine(last, c.map((value, i) => Math.abs(value) + r[i]), ...last.sizes);
  const apart = (k) => {
    let sum = roundings(last) * (reach[k] + reach[y]) + z[k] - z[y];
    for (let i = 0, at = 0; i < last.inputs; i++, at += last.outputs) {
      sum += r[i] * Math.abs(last.kernel[at + k] - last.kernel[at + y]);
    }
    return sum;
  };
  return z.every((_, k) => k === y || apart(k) < 0);
}

// The largest eps that is proven, less at most 2^-14; null where not even eps 0 is.
function* largestProven(network, x, y) {
  if (!proven(network, x, y, 0)) return null;
  let [low, high] = [0, 1];
  while (high - low > 2 ** -14) {
    const eps = (low + high) / 2;
    if (proven(network, x, y, eps)) low = eps;
    else high = eps;
    yield;
  }
  return low;
}

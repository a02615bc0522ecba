"use strict";

// A fully connected classifier, as page.py writes it: images in [0, 1], flattened, to logits.
// A layer is one of
//   {kernel, bias, inputs, outputs}   y = x W + b, with W row by row; bias may be null
//   {scale, offset}                   y = scale x + offset
//   {relu: true}                      y = max(x, 0)

// The numbers behind a base64 text of float32, little-endian.
function decode(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

function opened(network) {
  const layers = network.layers.map((layer) => {
    if (!layer.kernel) return layer;
    return { ...layer, kernel: decode(layer.kernel), bias: layer.bias && decode(layer.bias) };
  });
  return { ...network, layers };
}

// y = x W + b, summed in float64.
function dense({ inputs, outputs }, x, kernel, bias) {
  const y = bias ? Float64Array.from(bias) : new Float64Array(outputs);
  for (let i = 0, at = 0; i < inputs; i++, at += outputs) {
    const value = x[i];
    if (value === 0) continue;
    for (let j = 0; j < outputs; j++) y[j] += value * kernel[at + j];
  }
  return y;
}

function apply(layer, x) {
  if (layer.kernel) return dense(layer, x, layer.kernel, layer.bias);
  if (layer.relu) return x.map((value) => Math.max(value, 0));
  return Float64Array.from(x, (value) => layer.scale * value + layer.offset);
}

// What goes into each layer, and last the logits.
function forward(network, x) {
  const values = [x];
  for (const layer of network.layers) values.push(apply(layer, values.at(-1)));
  return values;
}

function logits(network, x) {
  return forward(network, x).pop();
}

// The gradient of Σ g_k z_k by the image, where `values` are those of `forward`.
function gradient(network, values, g) {
  for (let l = network.layers.length - 1; l >= 0; l--) {
    const layer = network.layers[l];
    if (layer.kernel) g = timesTransposed(layer, g);
    else if (layer.relu) g = g.map((value, i) => (values[l][i] > 0 ? value : 0));
    else g = g.map((value) => layer.scale * value);
  }
  return g;
}

// g Wᵀ
function timesTransposed(layer, g) {
  const { kernel, inputs, outputs } = layer;
  const back = new Float64Array(inputs);
  for (let i = 0, at = 0; i < inputs; i++, at += outputs) {
    let sum = 0;
    for (let j = 0; j < outputs; j++) sum += kernel[at + j] * g[j];
    back[i] = sum;
  }
  return back;
}

function softmax(z) {
  const largest = Math.max(...z);
  const powers = z.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

// The class with the highest logit; of several, the first.
function answer(z) {
  return z.indexOf(Math.max(...z));
}

// Interval bounds (Gowal et al. 2019, section 3, as in method2_fgsm/robust/bounds.py): all images
// within eps of x, a box of centre c and radius r, go through the network layer by layer.  Each
// layer makes its box wider by more than what float32 rounds there, so the bounds are those of the
// network as TensorFlow runs it.

const UNIT = 2 ** -24; // half of the distance from 1 to the next number of float32
const FEW = 16; // roundings of a layer beside those of its sums
// More than what float64 rounds here.
const SAFE = 1 + 1e-6;

function share(roundings) {
  return ((roundings + FEW) * UNIT * SAFE) / (1 - (roundings + FEW) * UNIT);
}

function box(x, eps) {
  const low = Float64Array.from(x, (value) => Math.max(value - eps - 2 * UNIT, 0));
  const high = Float64Array.from(x, (value) => Math.min(value + eps + 2 * UNIT, 1));
  return middle(low, high);
}

function middle(low, high) {
  return { c: low.map((a, i) => (a + high[i]) / 2), r: low.map((a, i) => (high[i] - a) / 2) };
}

// The sizes of the weights of a Dense layer, computed once.
function sizes(layer) {
  const bias = layer.bias || new Float32Array(layer.outputs);
  layer.sizes ??= { weights: layer.kernel.map(Math.abs), constants: bias.map(Math.abs) };
  return layer.sizes;
}

// The box with its radius larger by `part` of the largest number in it, and by what float32 takes
// to be zero.
function wider({ c, r }, part) {
  return { c, r: r.map((radius, i) => radius + part * (Math.abs(c[i]) + radius) + 1e-30) };
}

function through(layer, before) {
  if (layer.relu) {
    const { c, r } = wider(before, share(1));
    const after = middle(
      c.map((value, i) => Math.max(value - r[i], 0)),
      c.map((value, i) => Math.max(value + r[i], 0)),
    );
    return wider(after, FEW * UNIT * SAFE);
  }
  const part = share(layer.kernel ? layer.inputs : 1);
  const { c, r } = wider(before, part);
  const after = { c: apply(layer, c) };
  if (layer.kernel) {
    const { weights, constants } = sizes(layer);
    after.r = dense(layer, r, weights, constants.map((b) => part * b));
  } else {
    after.r = r.map((radius) => Math.abs(layer.scale) * radius + part * Math.abs(layer.offset));
  }
  return wider(after, FEW * UNIT * SAFE);
}

// Whether every image in [0, 1] within eps of x is a y.
function proven(network, x, y, eps) {
  const layers = [...network.layers];
  const last = layers.pop();
  let before = box(x, eps);
  for (const layer of layers) before = through(layer, before);
  const { c, r } = before;
  const z = apply(last, c);
  // How far a logit of float32 can be from the exact one.
  const reach = c.map((value, i) => Math.abs(value) + r[i]);
  const { weights, constants } = sizes(last);
  const part = share(last.inputs);
  const rounded = dense(last, reach, weights, constants).map((value) => part * value);
  return z.every((score, k) => {
    if (k === y) return true;
    let bound = score - z[y] + rounded[k] + rounded[y] + 1e-12 * (Math.abs(score) + Math.abs(z[y]));
    for (let i = 0; i < last.inputs; i++) {
      const at = i * last.outputs;
      bound += r[i] * Math.abs(last.kernel[at + k] - last.kernel[at + y]);
    }
    return bound < 0;
  });
}

// The largest eps that is proven, less at most 2^-14; null where not even eps 0 is.
function* largestProven(network, x, y) {
  if (!proven(network, x, y, 0)) return null;
  let low = 0;
  for (let high = 1, round = 0; round < 14; round++) {
    const eps = (low + high) / 2;
    if (proven(network, x, y, eps)) low = eps;
    else high = eps;
    yield;
  }
  return low;
}

"""The page's JavaScript computes what the scripts do."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from py_mini_racer import MiniRacer

from common import page
from common.networks import mnist
from logreg_softmax import exact, linear_programme
from method1_noise_optimization import attack
from method2_fgsm.fgsm import gradient_signs
from method2_fgsm.robust.bounds import largest_proven_eps
from method2_fgsm.smallest_eps import smallest_eps

# What a browser has and the bare engine has not, and what the tests ask for.
SHIM = """
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
function atob(text) {
  let [bits, count, bytes] = [0, 0, []];
  for (const letter of text.replace(/=+$/, "")) {
    [bits, count] = [(bits << 6) | LETTERS.indexOf(letter), count + 6];
    if (count >= 8) bytes.push((bits >> (count -= 8)) & 255);
    bits &= 0xffff;
  }
  return bytes.map((byte) => String.fromCharCode(byte)).join("");
}
let network;
function finish(search) {
  for (;;) { const { value, done } = search.next(); if (done) return value; }
}
const each = (text, f) => JSON.stringify(JSON.parse(text).map((row) => {
  row[0] = Float64Array.from(row[0]);
  const found = f(...row);
  const plain = (part) => (ArrayBuffer.isView(part) ? Array.from(part) : part);
  return found && found.x ? { ...found, x: plain(found.x) } : plain(found);
}));
"""


class Engine:
    """A JavaScript engine with the page's network.js and attacks.js, and a Keras model in it."""

    def __init__(self, model):
        self.engine = MiniRacer()
        pieces = [(page.PIECES / f"{name}.js").read_text() for name in ("network", "attacks")]
        self.engine.eval("\n".join([*pieces, SHIM]))
        network = {"layers": page.layers_of(model), "classes": model.output_shape[-1]}
        self.engine.eval(f"network = opened({json.dumps(network, default=page.packed)}); 0")

    def each(self, code, x, *columns):
        """What the code, a function of (x, …), gives for each image, with the other columns."""
        columns = [np.asarray(column).tolist() for column in columns]
        rows = list(zip(x.reshape(len(x), -1).astype(float).tolist(), *columns, strict=True))
        return json.loads(self.engine.eval(f"each({json.dumps(json.dumps(rows))}, {code})"))

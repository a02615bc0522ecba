"""A page on which ε can be dragged: one file that opens by double click and asks no network.

    python common/page.py
    python common/page.py --models softmax mlp mlp_certified
    python common/page.py --model mine.keras --samples mine.npz

On it are networks of Dense layers with their weights, twenty samples, and the attacks in plain
JavaScript (common/page/): the sign step, many steps, for softmax regression the exact answer.

reads   common/mnist.npz or --samples, common/weights/{model}.weights.h5 or a .keras file
writes  img/page.html, of a file img/page_{file}.html
"""

import base64
import json
import re
from pathlib import Path

import numpy as np

from common import command, data, files, plots
from common.command import Failure
from common.networks import keras_file, mnist, own_model

PIECES = files.COMMON / "page"
NAMES = "page.html", "page.css", "network.js", "attacks.js", "page.js"
SAMPLES, LARGEST_SIDE = 20, 64
KNOWN = "InputLayer", "Flatten", "Reshape", "Rescaling", "Dropout", "ReLU", "Dense"


def layers_of(model):
    """The layers of a Keras model as common/page/network.js takes them, their numbers as arrays.

    A Rescaling becomes a part of the Dense behind it.  Raises ValueError with the name of a layer
    that the page does not know, and where the page would compute anything else than the model.
    """
    found, scale, offset = [], 1.0, 0.0
    for layer in operations(model):
        kind = type(layer).__name__
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if kind not in KNOWN or activation not in ("linear", "relu"):
            known = f"{', '.join(KNOWN[1:])} without or with relu"
            raise ValueError(f"the page knows {known}, not {layer.name} ({kind}, {activation})")
        if kind == "Rescaling":
            scale, offset = scale * layer.scale, offset * layer.scale + layer.offset
        elif kind == "Dense":
            kernel = layer.kernel.numpy()
            bias = (layer.bias.numpy() if layer.use_bias else 0) + offset * kernel.sum(axis=0)
            found.append({"kernel": scale * kernel, "bias": bias, "relu": activation == "relu"})
            scale, offset = 1.0, 0.0
        elif kind == "ReLU" and found:
            found[-1]["relu"] = True
    x = np.random.default_rng(0).random((10, *model.input_shape[1:]), np.float32)
    z, ours = mnist.predict(model, x), x.reshape(len(x), -1)
    for layer in found:
        if ours.shape[1] == len(layer["kernel"]):
            ours = ours @ layer["kernel"] + layer["bias"]
            ours = ours.clip(0 if layer["relu"] else -np.inf)
    if ours.shape != z.shape or np.abs(ours - z).max() > 1e-4 * np.ptp(z):
        only = "it needs a Flatten, then Dense and plain ReLU in a row, in float32"
        raise ValueError(f"the page would give other logits: {only}")
    return found


def operations(model):
    """The operations of a Keras model in order, those of models within it in their place."""
    for layer in getattr(model, "_functional", model).operations:
        yield from operations(layer) if hasattr(layer, "layers") else [layer]


def choose(y, right):
    """Twenty places in y (n,), as many of each class, of those `right` if there are so many."""
    rows = np.flatnonzero(right) if right.sum() >= SAMPLES else np.arange(len(y))
    rank = [np.count_nonzero(y[rows[:i]] == y[row]) for i, row in enumerate(rows)]
    return rows[np.lexsort((y[rows], rank))[:SAMPLES]]


def page(content):
    """The HTML of the page: its pieces, and `content` as JSON that no text in it can end early."""
    parts = {name: (PIECES / name).read_text("utf-8") for name in NAMES}
    parts["data"] = json.dumps(content, default=packed).replace("<", "\\u003c")
    return re.sub(r"\{\{([\w.]+)\}\}", lambda found: parts[found[1]], parts["page.html"])


def packed(array):
    """An array as text: float32, little-endian, in base64."""
    return base64.b64encode(np.asarray(array, "<f4").tobytes()).decode()


def main(argv=None):
    parser = command.Parser(__doc__)
    command.option(parser, "--models", mnist.argument, ["softmax", "mlp"], "networks", nargs="+")
    own_model.add_model(parser, None)
    command.option(parser, "--samples", command.path, None, "digits, or those of a .keras file")
    command.add_output(parser, "the page to write (default: see above)")
    args = parser.parse_args(argv)
    own = isinstance(args.model, Path)
    name = f"page_{own_model.stem(args.model)}.html" if own else "page.html"
    output = files.check_output(args.output or files.IMG / name, args)

    names, path = None, args.samples or data.SAMPLES
    if own:
        x, y, names = data.load_own_samples(path, own_model.TRIED, dark=bool(args.pixels))
    else:
        x, y = data.load_samples(path)[:2] if args.samples else data.load("test")
    if max(x.shape[1:3]) > LARGEST_SIDE:
        raise Failure(f"{files.show(path)}: images are {x.shape[1:]}: at most 64 x 64 go on a page")
    networks, right = [], np.ones(len(x), bool)
    for model in [args.model] if args.model else args.models:
        network = own_model.open_network(model, x, y, names=names, pixels=args.pixels)
        keras_model, judge = own_model.load(network)
        with keras_file.naming(model):
            layers = layers_of(keras_model)
        right &= mnist.classify(judge, x) == y
        networks.append({"name": mnist.title(model), "layers": layers})
    rows = choose(y, right)
    names = names or [str(k) for k in range(network.classes)]
    images = {"shape": x.shape[1:], "images": x[rows], "labels": y[rows].tolist()}
    look = {"colours": plots.COLOURS, "dashed": [style != "-" for style in plots.LINE_STYLES]}
    content = {"networks": networks, "names": names, "digits": not own, **images, **look}
    with files.replacing(output) as temporary:
        temporary.write_bytes(page(content).encode())
    print(f"{len(rows)} samples and {len(networks)} networks: {output.stat().st_size / 1e6:.1f} MB")
    return [output]


if __name__ == "__main__":
    command.run(main)

"""A page on which ε can be dragged: one file that opens by double click and asks no network.

    python common/page.py
    python common/page.py --models softmax mlp mlp_certified
    python common/page.py --model mine.keras --samples mine.npz

It holds the weights of networks made of Flatten, Reshape, Rescaling, Dropout, Dense and ReLU,
twenty samples, and the attacks in plain JavaScript (common/page/): the sign step, the smallest
noise of many steps, and for softmax regression the exact answer.

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
from common.networks import mnist, own_model

PIECES = files.COMMON / "page"
SAMPLES = 20
LARGEST_SIDE = 64
PASSED_ON = "InputLayer", "Flatten", "Reshape", "Dropout"
PLAIN_RELU = {"negative_slope": 0, "threshold": 0, "max_value": None}


def operations(model):
    """The operations of a Keras model in order, those of models within it in their place."""
    for layer in getattr(model, "_functional", model).operations:
        yield from operations(layer) if hasattr(layer, "layers") else [layer]


def layers_of(model):
    """The layers of a Keras model as common/page/network.js takes them, their numbers as arrays.

    Raises ValueError with the name of a layer that the page does not know.
    """
    found, size = [], np.prod(model.input_shape[1:])
    for layer in operations(model):
        kind, known = type(layer).__name__, False
        function = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if kind in PASSED_ON:
            known = True
        elif kind == "ReLU":
            known = all(getattr(layer, key) == value for key, value in PLAIN_RELU.items())
            found.append({"relu": True})
        elif kind == "Rescaling" and np.ndim(layer.scale) == np.ndim(layer.offset) == 0:
            known = True
            found.append({"scale": float(layer.scale), "offset": float(layer.offset)})
        elif kind == "Dense" and layer.kernel.shape[0] == size:
            known = function in ("linear", "relu")
            kernel, size = layer.kernel.numpy(), layer.units
            bias = None if layer.bias is None else layer.bias.numpy()
            found.append({"kernel": kernel, "bias": bias, "inputs": len(kernel), "outputs": size})
            found += [{"relu": True}] if function == "relu" else []
        if not known:
            raise ValueError(
                f"the page cannot compute the layer {layer.name} ({kind}), only Flatten, Reshape, "
                "Rescaling, Dropout, ReLU, and Dense of a whole image without or with relu"
            )
    if "kernel" not in found[-1]:
        raise ValueError("the page needs a network that ends in a Dense layer")
    return found


def scores(layers, x):
    """The logits (n, classes) float64 of such layers for images x (n, ...)."""
    z = x.reshape(len(x), -1).astype(np.float64)
    for layer in layers:
        if "kernel" in layer:
            z = z @ layer["kernel"] + (0 if layer["bias"] is None else layer["bias"])
        else:
            z = z.clip(0) if "relu" in layer else z * layer["scale"] + layer["offset"]
    return z


def choose(y, right):
    """The places of twenty samples, as many of each class y (n,) as of the others: int64 (k,).

    right: which of them the networks get right, bool (n,); others only where those are too few.
    """
    rank = np.zeros(len(y), int)
    for kind in (True, False):
        for label in np.unique(y):
            rows = np.flatnonzero((y == label) & (right == kind))
            rank[rows] = np.arange(len(rows))
    return np.sort(np.lexsort((y, rank, ~right))[:SAMPLES])


def page(content):
    """The HTML of the page: its pieces, and `content` as JSON that no text in it can end early."""
    text = json.dumps(content, default=packed).replace("<", "\\u003c")
    parts = {piece.name: piece.read_text("utf-8") for piece in PIECES.iterdir()} | {"data": text}
    return re.sub(r"\{\{([\w.]+)\}\}", lambda found: parts[found[1]], parts["page.html"])


def packed(array):
    """An array as text: float32, little-endian, in base64."""
    return base64.b64encode(np.asarray(array, "<f4").tobytes()).decode()


def main(argv=None):
    parser = command.Parser(__doc__)
    more = {"nargs": "+", "metavar": "MODEL"}
    trained = ["softmax", "mlp"]
    command.option(parser, "--models", mnist.argument, trained, "the networks on it", **more)
    own_model.add_model(parser, None)
    samples = "digits, or the samples of a .keras file (default: the test set)"
    command.option(parser, "--samples", command.path, None, samples)
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
        raise Failure(f"{files.show(path)}: images of {x.shape[1]} x {x.shape[2]}, more than 64")
    networks, right = [], np.ones(len(x), bool)
    for model in [args.model] if args.model else args.models:
        network = own_model.open_network(model, x, y, names=names, pixels=args.pixels)
        keras_model, judge = own_model.load(network)
        try:
            layers = layers_of(keras_model)
            z = mnist.predict(keras_model, x[:SAMPLES])
            if (np.abs(scores(layers, x[:SAMPLES]) - z) > 1e-4 * np.ptp(z, 1)[:, None]).any():
                raise ValueError("the page would not give the logits that TensorFlow does")
        except ValueError as error:
            raise Failure(f"{files.show(model) if own else model}: {error}") from error
        right &= mnist.classify(judge, x) == y
        networks.append({"name": mnist.title(model), "classes": network.classes, "layers": layers})
    rows = choose(y, right)
    content = {
        "networks": networks,
        "names": names or list(map(str, range(network.classes))),
        "digits": not own,
        "shape": x.shape[1:],
        "images": x[rows],
        "labels": y[rows].tolist(),
        "colours": plots.COLOURS,
        "dashed": [style != "-" for style in plots.LINE_STYLES],
    }
    with files.replacing(output) as temporary:
        temporary.write_text(page(content), "utf-8", newline="\n")
    print(f"{len(rows)} samples and {len(networks)} networks: {output.stat().st_size / 1e6:.1f} MB")
    return [output]


if __name__ == "__main__":
    command.run(main)

"""Every script, run twice with one seed, leaves the same bytes; another seed chooses otherwise.

(For transfer.py, which wants all of the training set, tests/test_transfer.py says so.)
"""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common import data, files, results
from common.networks import mnist, training
from method1_noise_optimization import compare_methods
from method2_fgsm.robust import plain_and_adversarial

METHOD1 = "method1_noise_optimization"


@pytest.fixture(scope="module", autouse=True)
def few_digits(trained, tmp_path_factory):
    """Thirty digits as samples, and a small test set for the scripts that take all of it."""
    real = data.load
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("samples") / "samples.npz"
        images, labels, indices = data.draw_samples(30, 0)
        np.savez(path, images=images, labels=labels, indices=indices)
        patch.setattr(data, "SAMPLES", path)
        patch.setattr(data, "load", lambda split: [part[:600] for part in real(split)])
        patch.setattr(plain_and_adversarial, "PGD_STEPS", 3)
        patch.setitem(compare_methods.WAYS["smallest ε, 500 steps"], "steps", 40)
        yield path


# The script, its arguments, and what it writes: each kind of file, each source of chance.
SCRIPTS = {
    "generate_5k": ("common.generate_5k", ("--count", "40"), "o.npz"),
    "epsilon": ("method2_fgsm.epsilon", ("--model", "mlp", "--count", "2"), "o.png"),
    "mnist_fast_gradient": ("method2_fgsm.mnist_fast_gradient", ("--model", "cnn"), "o.npz"),
    "compare_methods": (f"{METHOD1}.compare_methods", ("--limit", "4"), "o.png"),
}


def contents(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_same_seed_gives_the_same_bytes_from_any_folder(tmp_path, monkeypatch, name):
    module, arguments, output = SCRIPTS[name]
    main = importlib.import_module(module).main
    # Nothing else is written: the checkout may be one that cannot be written to.
    monkeypatch.setattr(files, "IMG", Path("/proc/img"))
    written = []
    for run, seed in (("first", ()), ("second", ()), ("other", ("--seed", "1"))):
        (tmp_path / run).mkdir()
        if run != "other" or name in ("generate_5k", "compare_methods"):
            main([*arguments, *seed, "--output", str(tmp_path / run / output)])
        written.append(contents(tmp_path / run))
        monkeypatch.chdir(tmp_path)
    assert written[0] == written[1] != written[2]
    assert len(written[0]) == 1


@pytest.mark.parametrize(
    ("module", "arguments", "name"),
    [
        ("common.train_mnist", ("--model", "cnn"), "cnn"),
        ("method2_fgsm.adversarial_training", ("--model", "mlp"), "mlp_adversarial"),
    ],
)
def test_training_twice_gives_the_same_weights_predictions_and_figures(
    trained, tmp_path, monkeypatch, module, arguments, name
):
    plain = mnist.weights_path("mlp")
    written, weights = [], []
    for run in ("first", "second"):
        monkeypatch.setattr(files, "WEIGHTS", tmp_path / run / "weights")
        monkeypatch.setattr(files, "IMG", tmp_path / run / "img")
        files.WEIGHTS.mkdir(parents=True)
        shutil.copy(plain, files.WEIGHTS)
        paths = importlib.import_module(module).main([*arguments, "--epochs", "1"])
        # The weights file holds the time at which it was written; what it says has to be equal.
        weights.append(mnist.load(name).get_weights())
        written.append([path.read_bytes() for path in paths if path.suffix != ".h5"])
    assert written[0] == written[1]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_seed_trains_other_weights():
    optimizer = training.cosine_adam(2e-3)
    options = {"epochs": 1, "batch_size": 500}
    runs = [training.fit("softmax", optimizer, seed=seed, **options) for seed in (0, 1)]
    for one, other in zip(*(model.get_weights() for model in runs), strict=True):
        assert (one != other).any()


DRAW = """
import importlib, sys
main = importlib.import_module(sys.argv[1]).main
for seed, name in ("0", "a.png"), ("0", "b.png"), ("1", "c.png"):
    main(["r.npz", "--rows", "1", "--columns", "2", "--seed", seed, "--output", name])
assert not {"tensorflow", "keras"} & sys.modules.keys()
"""


@pytest.mark.parametrize(
    ("module", "script"),
    [
        ("method2_fgsm.visualize_mnist", "mnist_fast_gradient"),
        (f"{METHOD1}.visualize_adv_examples", "attack_mnist"),
    ],
)
def test_pictures_of_results_repeat_and_follow_the_seed_without_tensorflow(
    tmp_path, module, script
):
    xs = np.random.default_rng(0).uniform(size=(40, 28, 28)).astype(np.float32)
    y = np.arange(40) % 10
    other = (y + 1) % 10
    results.save(
        tmp_path / "r.npz", xs=xs, noises=0 * xs, y_trues=y, y_preds=y, y_preds_adversarial=other,
        y_targets=other,
        config={"script": script, "model": "mlp", "eps": 0.1, "method": "minimal", "target": None},
    )  # fmt: skip
    command = [sys.executable, "-c", DRAW, module]
    subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(files.ROOT)}, check=True)
    first, again, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert first == again != other

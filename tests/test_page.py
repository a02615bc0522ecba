"""The page's JavaScript computes what the scripts do, and the page shows it."""

import base64
import json
import re

import browser
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from common import data, files, page
from common.networks import mnist
from logreg_softmax import exact, linear_programme
from method1_noise_optimization import attack
from method2_fgsm.fgsm import gradient_signs
from method2_fgsm.robust import certified_training
from method2_fgsm.robust.bounds import largest_proven_eps
from method2_fgsm.smallest_eps import smallest_eps

# What a browser has and the bare engine has not; and how the tests ask it.
SHIM = """
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
function atob(text) {
  let [bits, count, bytes] = [0, 0, []];
  for (const letter of text.replace(/=+$/, "")) {
    [bits, count] = [((bits << 6) | LETTERS.indexOf(letter)) & 0xffff, count + 6];
    if (count >= 8) bytes.push((bits >> (count -= 8)) & 255);
  }
  return bytes.map((byte) => String.fromCharCode(byte)).join("");
}
let network;
function finish(search) {
  for (;;) { const { value, done } = search.next(); if (done) return value; }
}
function each(rows, f) {
  const found = rows.map(([x, ...more]) => f(Float64Array.from(x), ...more));
  return JSON.stringify(found.map((one) => (ArrayBuffer.isView(one) ? Array.from(one) : one)));
}
"""


class Engine:
    """A JavaScript engine with network.js, attacks.js and the weights of a Keras model."""

    def __init__(self, model):
        from py_mini_racer import MiniRacer

        self.engine = MiniRacer()
        pieces = [
            (page.PIECES / f"{name}.js").read_text("utf-8") for name in ("network", "attacks")
        ]
        network = json.dumps({"layers": page.layers_of(model)}, default=page.packed)
        self.engine.eval("\n".join([*pieces, SHIM, f"network = opened({network}); 0"]))

    def each(self, code, x, *columns):
        """What the code, a function of (x, …), gives for each image and its row of the columns."""
        columns = [np.asarray(column).tolist() for column in columns]
        rows = list(zip(x.reshape(len(x), -1).astype(float).tolist(), *columns, strict=True))
        found = json.loads(self.engine.eval(f"each({json.dumps(rows)}, {code})"))
        return np.array(found, float)  # null is NaN


@pytest.fixture(scope="module")
def engines():
    """A function: the engine of a model.  They have to be closed, or Python would not end."""
    opened = {}

    def engine(model):
        if id(model) not in opened:
            opened[id(model)] = Engine(model), model
        return opened[id(model)][0]

    yield engine
    for engine, _ in opened.values():
        engine.engine.close()


@pytest.fixture(scope="module")
def models(trained):
    """Softmax regression, the MLP, and a small network that was trained on bounds."""
    x, y = (part[:4000] for part in data.load("train"))
    small = keras.Sequential(
        [keras.Input((28, 28)), layers.Flatten(), layers.Dense(40, "relu"), layers.Dense(10)]
    )
    normal = certified_training.normalised(small)
    optimizer = keras.optimizers.Adam(0.005)
    variables = normal.trainable_variables
    optimizer.build(variables)

    @tf.function
    def train(x, y, eps):
        with tf.GradientTape() as tape:
            loss, _ = certified_training.bounds_loss(normal, x, y, eps, 0.5, 0.0)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for step in range(400):
        rows = slice(step % 40 * 100, step % 40 * 100 + 100)
        train(x[rows], y[rows], tf.constant(0.05 * min(step / 200, 1), tf.float32))
    # The moving statistics are those of all the digits, as they stand at the end.
    for layer in normal.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    normal(x, training=True)
    certified_training.fold(normal, small)
    return {"softmax": trained["softmax"], "mlp": trained["mlp"], "certified": small}


NAMES = "softmax", "mlp", "certified"
GOALS = {True: "{to: y}", False: "{from: y}"}


@pytest.fixture
def setting(models, engines, right):
    """A function: a model, its engine, the first digits that it gets right, labels and targets."""

    def get(name, count):
        model = models[name]
        x, y = right(model, count)
        return model, engines(model), x, y, (y + np.arange(count) % 9 + 1) % 10

    return get


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_sign_steps_are_those_of_tensorflow(setting, name):
    model, engine, x, y, _ = setting(name, 100)
    z = mnist.predict(model, x)
    far = np.abs(engine.each("(x) => logits(network, x)", x) - z)
    assert (far <= 1e-4 * np.ptp(z, axis=1)[:, np.newaxis]).all()
    for shift in range(10):
        targeted, wanted = shift > 0, (y + shift) % 10
        signs = gradient_signs(model, x, wanted).reshape(100, -1) * (-1 if targeted else 1)
        ours = engine.each(f"(x, y) => signStep(network, x, {GOALS[targeted]})", x, wanted)
        # Where they differ, float64 says that the gradient is within rounding of zero.
        image, pixel = np.nonzero(ours != signs)
        slope = "(x, y) => slopeOfMargin(network, forward(network, x), {from: y})"
        gradient = (
            np.abs(engine.each(slope, x[image], wanted[image]))
            if len(image)
            else np.empty((0, 784))
        )
        assert (
            gradient[np.arange(len(image)), pixel] < 1e-5 * gradient.max(axis=1, initial=0)
        ).all()
        assert len(image) < 50


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_one_step_needs_what_smallest_eps_says(setting, name, targeted):
    model, engine, x, y, target = setting(name, 20)
    wanted = target if targeted else y
    goal = GOALS[targeted]
    code = f"(x, y) => finish(firstOnLine(network, x, signStep(network, x, {goal}), {goal}))"
    theirs = smallest_eps(model, x, wanted, targeted=targeted)[0]
    np.testing.assert_allclose(engine.each(code, x, wanted), theirs, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_many_steps_find_what_the_scripts_find(setting, name, targeted):
    model, engine, x, y, target = setting(name, 40 if name == "softmax" else 15)
    wanted = target if targeted else y
    code = f"(x, y) => finish(SEARCH(network, x, {GOALS[targeted]})).size"
    eps = engine.each(code.replace("SEARCH", "smallestEps"), x, wanted)
    theirs = smallest_eps(model, x, wanted, targeted=targeted, steps=100)[0]
    assert abs(eps.mean() / theirs.mean() - 1) < 0.03
    noise = attack.find_noise(model, x, wanted, targeted=targeted, method="minimal")
    sizes = engine.each(code.replace("SEARCH", "smallestNoise"), x, wanted)
    assert abs(sizes.mean() / attack.sizes(noise).mean() - 1) < 0.03


def test_the_exact_answers_of_softmax_regression_are_the_optima(setting):
    """Of the nearest of nine targets, by linear and quadratic programmes."""
    model, engine, x, y, _ = setting("softmax", 25)
    weights, images = model.get_weights(), np.repeat(x, 9, axis=0)
    targets = ((y[:, np.newaxis] + np.arange(1, 10)) % 10).ravel()
    for norm, optima in (
        ("Infinity", linear_programme.smallest_linf(*weights, images, targets)[0]),
        ("2", attack.sizes(exact.smallest_noise(*weights, images, targets)[0])),
    ):
        sizes = engine.each(f"(x, y) => finish(exact(network, x, y, {norm})).size", x, y)
        np.testing.assert_allclose(sizes, np.nanmin(optima.reshape(25, 9), axis=1), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_called_proven_is_proven(setting, name):
    model, engine, x, y, _ = setting(name, 100)
    ours = engine.each("(x, y) => finish(largestProven(network, x, y))", x, y)
    theirs = largest_proven_eps(model, x, y)
    assert (ours <= theirs).all()
    assert (ours >= theirs - 2e-4).all()
    found = engine.each("(x, y) => finish(smallestEps(network, x, {from: y})).size", x[:10], y[:10])
    assert (ours[:10] < found).all()
    assert ours.mean() > (0.01 if name == "certified" else 0.001)


@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_odd_networks_are_finite_differences(engines, seed):
    """With and without bias, Rescaling before a Dense or between two, and one unit wide."""
    random = np.random.default_rng(seed)
    a, b, k = map(int, random.integers(1, 9, 3))
    stack = [layers.Rescaling(2.0, -1.0)] if seed % 2 else []
    stack += [layers.Flatten(), layers.Dense(a, "relu", use_bias=seed > 1), layers.Dropout(0.5)]
    stack += [layers.Dense(b), layers.ReLU(), layers.Rescaling(-0.5, 0.3)] if seed else []
    model = keras.Sequential([keras.Input((3, 5, 1 + 2 * (seed % 2))), *stack, layers.Dense(k + 1)])
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    x = random.random((5, *model.input_shape[1:]), np.float32)
    engine = engines(model)
    z = engine.each("(x) => logits(network, x)", x)
    np.testing.assert_allclose(z, mnist.predict(model, x), atol=1e-5 * max(np.ptp(z), 1))
    g = random.normal(size=k + 1)
    code = f"(x) => gradient(network, forward(network, x), {g.tolist()})"
    slopes = engine.each(code, x)
    for pixel in range(slopes.shape[1]):
        step = np.zeros_like(x, np.float64).reshape(5, -1)
        step[:, pixel] = 1e-6
        low, high = (
            engine.each("(x) => logits(network, x)", x.reshape(5, -1) + side * step) @ g
            for side in (-1, 1)
        )
        np.testing.assert_allclose(slopes[:, pixel], (high - low) / 2e-6, rtol=1e-4, atol=1e-6)


# The page ---------------------------------------------------------------------------------------


def shared(*stack):
    layer = layers.Dense(12, "relu")
    return [layers.Flatten(), layer, *stack, layer, layers.Dense(3)]


@pytest.mark.parametrize(
    ("stack", "culprit"),
    [
        ([layers.Reshape((4, 3, 1)), layers.Conv2D(2, 2, name="edges")], "edges (Conv2D"),
        ([layers.Flatten(), layers.Dense(4, "tanh", name="curved")], "curved (Dense, tanh"),
        ([layers.Flatten(), layers.Dense(4), layers.ReLU(6)], "other logits"),
        ([layers.Dense(4, "relu")], "Flatten"),
        (shared()[:-1], "other logits"),
        ([layers.Flatten(), layers.Dense(4, "relu", dtype="mixed_float16")], "other logits"),
    ],
)
def test_a_network_that_the_page_cannot_compute_is_refused_by_its_layer(stack, culprit):
    random = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((4, 3)), *stack, layers.Flatten(), layers.Dense(3)])
    model.set_weights([random.normal(0, 9, w.shape) for w in model.get_weights()])
    with pytest.raises(ValueError, match=culprit.replace("(", r"\(")):
        page.layers_of(model)


NASTY = "</script><script>x$&$1`", "a \"b\" 'c'", "数字 \\ {{data}}"


@pytest.fixture(scope="module")
def pages(trained, tmp_path_factory):
    """The page of our networks, and that of a file for images in colour with nasty names."""
    folder = tmp_path_factory.mktemp("pages")
    ours, own = folder / "page.html", folder / "</script>数$&.keras".replace("/", "∕")
    page.main(["--output", str(ours)])
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = random.random((60, 6, 5, 3)) * 0.6
    images[np.arange(60), :, :, labels] += 0.4
    samples = folder / "mine.npz"
    np.savez(samples, images=images.astype(np.float32), labels=labels, names=np.array(NASTY))
    model = keras.Sequential([keras.Input((6, 5, 3)), layers.Flatten(), layers.Dense(3, "softmax")])
    means = np.stack([images[labels == k].mean(axis=0).ravel() for k in range(3)], axis=1)
    model.set_weights([20 * (means - means.mean()), np.zeros(3)])
    model.save(own)
    theirs = folder / "theirs.html"
    page.main(["--model", str(own), "--samples", str(samples), "--output", str(theirs)])
    return ours, theirs, own.name


def test_the_same_arguments_and_weights_give_the_same_bytes(pages, tmp_path):
    page.main(["--output", str(tmp_path / "again.html")])
    assert (tmp_path / "again.html").read_bytes() == pages[0].read_bytes()


def test_the_samples_are_each_digit_twice_and_seen_right(pages, models, digits):
    text = re.search(r'id="data">(.*?)</script>', pages[0].read_text("utf-8"), re.S)[1]
    content = json.loads(text)
    assert content["labels"] == [*range(10)] * 2
    x = np.frombuffer(base64.b64decode(content["images"]), "<f4").reshape(20, 28, 28)
    assert all((image == digits[0]).all(axis=(1, 2)).any() for image in x)
    for name in ("softmax", "mlp"):
        np.testing.assert_array_equal(mnist.classify(models[name], x), content["labels"])


def test_images_that_are_too_large_are_refused(refuses, tmp_path):
    np.savez(tmp_path / "wide.npz", images=np.ones((2, 4, 65), np.float32), labels=[0, 1])
    (tmp_path / "wide.keras").touch()
    options = "--model", tmp_path / "wide.keras", "--samples", tmp_path / "wide.npz"
    refuses("common/page", *options, culprit="at most 64 x 64")


def test_an_untrained_network_is_an_error(refuses):
    refuses("common/page", "--models", "mlp_certified", culprit="mlp_certified", code=(1,))


def test_every_piece_of_the_page_is_in_a_wheel():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    listed = tomllib.loads((files.ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        path for pattern in listed["package-data"]["common"] for path in files.COMMON.glob(pattern)
    }
    assert {page.PIECES / name for name in page.NAMES} <= found


@pytest.fixture(scope="module")
def chromium():
    if not (browser.CHROMIUM.exists() and browser.DRIVER.exists()):
        pytest.skip(browser.MISSING)
    driver = browser.start()
    yield driver
    driver.quit()


@pytest.fixture
def shown(chromium, pages):
    """The page of our networks, just opened: a function that chooses, or gives a text."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    browser.show(chromium, pages[0])

    def find(name):
        return chromium.find_element(By.CSS_SELECTOR, name)

    def choose(network=None, target=None, method=None):
        if network is not None:
            Select(find("#network")).select_by_index(network)
        if target is not None:
            Select(find("#target")).select_by_visible_text(target)
        if method is not None:
            find(f"[value={method}]").click()
        browser.settle(chromium)
        return find("#said").text, find("#marks").text

    choose.find = find
    yield choose
    errors = [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors


def answer_of(shown):
    """The class that the bars mark."""
    return shown.find("#bars .answer .name").text.removeprefix("true: ")


def test_the_page_opens_with_a_2_that_is_seen_as_a_6_and_asks_for_nothing(chromium, shown, pages):
    said, _ = shown()
    assert "the network sees a 6" in said
    assert "You still see a 2" in said
    assert answer_of(shown) == "6"
    assert "seen as a 2" in shown.find("#before-text").text
    assert set(browser.requests(chromium)) == {pages[0].as_uri()}


def test_the_slider_is_dragged_and_moved_by_keys(chromium, shown):
    from selenium.webdriver import ActionChains, Keys

    def eps():
        return float(shown.find("#eps").get_attribute("value"))

    slider, first = shown.find("#eps"), eps()
    thumb = 8 + (slider.size["width"] - 16) * first / 0.5 - slider.size["width"] / 2
    drag = ActionChains(chromium).move_to_element_with_offset(slider, int(thumb), 0)
    drag.click_and_hold().move_by_offset(150, 0).release().perform()
    dragged = eps()
    assert dragged > first + 0.05
    assert f"at most {dragged:.3f}" in shown.find("#said").text
    slider.send_keys(Keys.ARROW_RIGHT)
    assert eps() == pytest.approx(dragged + 0.0005)
    for mark in shown.find("#marks").find_elements("tag name", "button"):
        mark.click()
        assert eps() == pytest.approx(float(mark.text.split()[-1]), abs=0.0011)
    slider.send_keys(Keys.HOME)
    assert "Nothing is changed" in shown.find("#said").text
    assert answer_of(shown) == "2"


@pytest.mark.parametrize(("number", "name"), [(0, "softmax"), (1, "mlp")])
@pytest.mark.parametrize("target", [None, 7])
def test_every_method_shows_what_the_engine_finds(
    chromium, shown, models, engines, number, name, target
):
    x, y = chromium.execute_script("return [Array.from(state.x), state.y]")
    goal = f"{{from: {y}}}" if target is None else f"{{to: {target}}}"
    is_exact = target is None and name == "softmax"

    def size(search):
        code = f"(function* (x) {{ const found = yield* {search}; return found?.size ?? found; }})"
        return engines(models[name]).each(f"(x) => finish({code}(x))", np.array([x]))[0]

    one = size(f"firstOnLine(network, x, signStep(network, x, {goal}), {goal})")
    eps = size(
        f"exact(network, x, {y}, Infinity)" if is_exact else f"smallestEps(network, x, {goal})"
    )
    noise = size(f"exact(network, x, {y}, 2)" if is_exact else f"smallestNoise(network, x, {goal})")
    word = "any wrong answer" if target is None else f"a {target}"
    _, marks = shown(number, word, "sign")
    assert (f"one sign step needs {one:.3f}" in marks) == np.isfinite(one)
    assert f"{np.fmin(eps, one):.3f}" in marks
    assert ("exact" in marks) == is_exact
    assert ("proven" in marks) == (name == "mlp")
    for method in ("eps", "noise"):
        said, _ = shown(method=method)
        assert "still see a 2" in said
        assert answer_of(shown) != "2" if target is None else answer_of(shown) == "7"
    assert f"|r|₂ = {noise:.3f}" in said
    assert ("exact" in said) == is_exact


def test_every_target_can_be_chosen_but_what_it_is(shown):
    for k in {*range(10)} - {2}:
        shown(target=f"{'an' if k == 8 else 'a'} {k}", method="eps")
        assert answer_of(shown) == str(k)
    assert not shown.find("#target option[value='2']").is_enabled()


def test_a_digit_is_clicked_and_a_seven_is_drawn(chromium, shown):
    from selenium.webdriver import ActionChains

    shown.find("#grid label:nth-child(10)").click()
    browser.settle(chromium)
    assert "a 9" in shown.find("#before").get_attribute("aria-label")
    field = shown.find("#field")
    pen = ActionChains(chromium, duration=30).move_to_element_with_offset(field, -60, -70)
    pen.click_and_hold()
    for across, down in [(30, 0)] * 4 + [(-12, 28)] * 5:
        pen.move_by_offset(across, down)
    pen.release().perform()
    browser.settle(chromium)
    assert "seen as a 7" in shown.find("#before-text").text
    assert "what you drew" in shown.find("#said").text
    shown.find("#clear").click()


def test_a_drawing_by_keys_is_centred_as_mnist_is(chromium, shown):
    from selenium.webdriver import Keys

    shown.find("#field").send_keys(" ", *[Keys.ARROW_UP] * 8)
    browser.settle(chromium)
    x = np.array(chromium.execute_script("return Array.from(state.x)")).reshape(28, 28)
    rows, columns = np.nonzero(x > 0.5)
    assert 18 <= np.ptp(rows) + 1 <= 20
    assert np.ptp(columns) + 1 <= 3
    middle = np.indices((28, 28)).reshape(2, -1) @ x.ravel() / x.sum() + 0.5
    np.testing.assert_allclose(middle, 14, atol=0.2)


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_has_to_be_scrolled_across(chromium, pages, width):
    for path in pages[:2]:
        browser.show(chromium, path, width)
        assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
    browser.show(chromium, pages[0])
    assert chromium.execute_script("return document.documentElement.scrollHeight") <= 720


def test_names_of_classes_and_files_stay_text(chromium, pages):
    _, path, file = pages
    browser.show(chromium, path)
    texts = chromium.execute_script(
        "return ['target', 'network', 'bars'].map((id) => document.getElementById(id).textContent)"
    )
    assert all(name in texts[0] and name in texts[2] for name in NASTY)
    assert file in texts[1]
    assert chromium.execute_script("return document.scripts.length") == 4
    assert not [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"]

"""The fast gradient sign method on photographs (Goodfellow et al. 2015).

    python method2_fgsm/imnet_fast_gradient.py
    python method2_fgsm/imnet_fast_gradient.py --images FOLDER --save-images OTHER_FOLDER
    python method2_fgsm/imnet_fast_gradient.py --model vgg16 --eps 0.004 --target "giant panda"

One step of size eps along the sign of the gradient, x_adv = clip(x + eps * sign(grad J(x, y))),
with pixels in [0, 1] whatever the network.  y is the label that the network itself gives the
photograph, unless the folder a photograph lies in is called by an ImageNet index ("388") or
synset ("n02510455"): then y is that class, and top-1 and top-5 accuracy are reported.  With
--target the step goes down the gradient of J(x, target).

Every file below FOLDER is tried, in sorted order: JPEG, PNG, BMP, GIF, WebP.  A photograph is
turned upright, its shorter side scaled to 224 pixels, and the middle 224 x 224 cut out
(common/imagenet/photos.py says how exactly).  What cannot be read is skipped with a warning.
Memory does not grow with the folder.

--save-images writes FOLDER's structure anew with an 8-bit PNG for each photograph, named after
it with ".png" added.  Rounding goes towards the original, so that the PNG is within eps of it
too: 0.007 is 1.785 / 255, so each value changes by 1.  Below 1 / 255 = 0.0039 no 8-bit image but
the original itself is within eps.  Each PNG is read back and classified again.

--strategy mirrored splits each batch over all GPUs of this machine.  With multiworker several
machines run the same command, each on its share of the files, and worker 1 puts the rows
together as one process would have written them (common/distribution.py, photo_shards.py).  They
share the folder of OUTPUT; a worker that was killed goes on with --resume.

reads   the photographs; the network's weights (installed by pip, downloaded, or --weights)
writes  OUTPUT.csv, a row for each photograph (columns: common/imagenet/streamed_results.py), and
        OUTPUT.npz beside it with the first nine for method2_fgsm/visualize_imnet.py
        while it runs, OUTPUT.partial.csv and OUTPUT.partial.npz; --resume continues from there
        with several workers, the same of OUTPUT.worker-1-of-2.csv and so on until all are done
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from common import command, distribution, files, models, results, shards
from common.command import Failure
from common.imagenet import labels, networks, streamed_results
from method2_fgsm import photo_shards

IMAGES = files.COMMON / "images"
EPS = 0.007  # the epsilon of Goodfellow et al.'s figure 1
KEPT = 9  # images for the figure, three by three


def main(argv=None):
    args = parse(argv)
    npz = args.output.with_suffix(".npz")
    worker = distribution.worker(args.strategy)
    for path in (args.output, npz):
        shards.check_output(path, worker)
    target = None if args.target is None else labels.index_of(args.target)
    if not args.images.is_dir():
        raise Failure(f"--images {files.show(args.images)} is not a folder")
    _check_save_images(args)

    skipped = Skipped()
    paths = photo_paths(args.images, skipped)
    unopened = len(skipped.paths)  # folders
    settings = {
        "script": "imnet_fast_gradient",
        "model": args.model,
        "weights": args.weights and _sha256(args.weights),
        "eps": args.eps,
        "target": target,
        "images": files.from_root(args.images),
        "batch_size": args.batch_size,
        "save_images": args.save_images and files.from_root(args.save_images),
    }
    if worker.count == 1:
        run = attack_files(args, args.output, paths, settings, target, skipped)
    else:
        expected = settings | photo_shards.settings(worker, args.images, paths)
        attack_shard(args, worker, paths, expected, target, skipped)
        if worker.rank:
            return [shards.path(args.output, worker)]
        run = merge_shards(args, worker, paths, settings, expected)

    print(table(streamed_results.read(args.output), args))
    if unopened + len(run["skipped"]):
        print(f"skipped files        {unopened + len(run['skipped']):7d}")
    if run["attacked"]:
        speed = run["attacked"] / run["seconds"]
        print(f"photographs a second {speed:7.1f}  (compilation and reading included)")
    written = [args.output, npz, *([args.save_images] if args.save_images else [])]
    for path in written:
        print(f"wrote {files.show(path)}")
    return written


def attack_files(args, output, paths, settings, target, skipped, *, account=False):
    """Attack photographs and write the rows and the first images to `output` and beside it.

    account: have the .npz also say what `photo_shards.ACCOUNT` lists.  Returns that as a dict.
    Raises `Failure` where nothing can be read, unless it is a part of several.
    """
    npz = output.with_suffix(".npz")
    done, kept = set(), None
    if args.resume:
        done, kept = streamed_results.resume(output, npz, settings, args.batch_size)
    model = networks.load(args.model, args.weights)
    if args.save_images:
        with files.writing(args.save_images):
            args.save_images.mkdir(exist_ok=True)
    if not args.resume:
        streamed_results.start(output, npz)
    first = First(streamed_results.partial(npz), settings, kept)

    started = time.perf_counter()
    attacked = 0
    skipped.paths.clear()
    try:
        with streamed_results.appending(output) as write:
            for rows in attack_all(model, args, paths, done, target, first, skipped):
                skipped.release()
                write(rows)
                attacked += len(rows)
    except KeyboardInterrupt as interrupt:
        rows = files.show(streamed_results.partial(output))
        raise KeyboardInterrupt(
            f"{rows} has {len(done) + attacked} rows; go on with --resume"
        ) from interrupt
    run = {
        "skipped": list(skipped.paths),
        "attacked": attacked,
        "seconds": time.perf_counter() - started,
    }
    if account:
        first.settings = settings | run
    elif not attacked and not done:
        streamed_results.start(output, npz)
        reason, *others = skipped.waiting
        more = f", and {len(others)} more" if others else ""
        raise Failure(f"no readable image in {files.show(args.images)}: {reason}{more}")
    skipped.release()
    first.save()
    streamed_results.finish(output, npz)
    return run


def attack_shard(args, worker, paths, settings, target, skipped):
    """Attack this worker's share of the photographs, unless --resume finds that done."""
    if not (args.resume and photo_shards.flaw(worker, args.output, settings) is None):
        if not args.resume:
            photo_shards.remove(worker, args.output)
        own = [paths[i] for i in shards.mine(len(paths), worker, args.batch_size)]
        output = shards.path(args.output, worker)
        attack_files(args, output, own, settings, target, skipped, account=True)
    if worker.rank:
        print(f"{worker} is done; worker 1 puts the results together")
        print(f"wrote {files.show(shards.path(args.output, worker))}")


def merge_shards(args, worker, paths, settings, expected):
    """Wait for the other workers' shards, with settings as `expected`, and put all together.

    Returns what all did, as `attack_files` does.
    """
    shards.wait(
        worker,
        lambda other: photo_shards.paths_of(other, args.output),
        lambda other: photo_shards.flaw(other, args.output, expected),
        args.wait,
    )
    runs = photo_shards.merge(worker, args.output, paths, args.batch_size, settings, KEPT)
    for rank in range(worker.count):
        photo_shards.remove(worker._replace(rank=rank), args.output)
    skipped = [path for run in runs for path in run["skipped"]]
    if len(skipped) == len(paths):
        raise Failure(f"no readable image in {files.show(args.images)}: each worker says why")
    return {
        "skipped": skipped,
        "attacked": sum(run["attacked"] for run in runs),
        # They work at the same time: the slowest one counts.
        "seconds": max(run["seconds"] for run in runs),
    }


def parse(argv):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--model", choices=networks.NAMES, default="efficientnet_lite0", help="the network"
    )
    parser.add_argument(
        "--images", type=Path, help="folder of photographs (default: common/images)"
    )
    parser.add_argument(
        "--eps", type=command.pixel_size, default=EPS, help="size of the step, in pixels of [0, 1]"
    )
    parser.add_argument("--target", help="class to reach: index from 0 to 999, synset or name")
    parser.add_argument("--weights", type=Path, help="the network's weights, a Keras .h5 file")
    parser.add_argument("--save-images", type=Path, help="folder for the adversarial PNGs")
    parser.add_argument(
        "--batch-size", type=command.positive_int, default=32, help="photographs at a time"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted run with the same settings"
    )
    parser.add_argument(
        "--output", type=Path, help="CSV file (default: method2_fgsm/results_imnet_{model}.csv)"
    )
    distribution.add_argument(parser)
    shards.add_arguments(parser, resume=False)
    args = parser.parse_args(argv)
    args.images = args.images or IMAGES
    if args.output is None:
        args.output = files.ROOT / "method2_fgsm" / f"results_imnet_{args.model}.csv"
    if args.output.suffix != ".csv":
        parser.error(f"--output {files.show(args.output)} does not end in .csv")
    return args


def _check_save_images(args):
    """The folder for the PNGs may not lie among the photographs."""
    folder = args.save_images
    if folder is None:
        return
    if folder.resolve().is_relative_to(args.images.resolve()):
        raise Failure(
            f"--save-images {files.show(folder)} lies in {files.show(args.images)}: what is saved "
            "there would be taken for photographs; name a folder elsewhere"
        )
    if folder.exists() and not folder.is_dir():
        raise Failure(f"--save-images {files.show(folder)} is not a folder")
    if not folder.parent.is_dir():
        raise Failure(
            f"cannot write {files.show(folder)}: the folder {files.show(folder.parent)} does not "
            "exist"
        )


def _sha256(path):
    models.check_weights(path, remedy=networks.REMEDY)
    return shards.sha256(path)


class Skipped:
    """Says on stderr which files are passed over and why, a line each, and keeps their paths.

    The lines wait for the first photograph that can be read: if there is none, the run ends with
    one line, not with one for every file.
    """

    def __init__(self):
        self.paths, self.waiting = [], []

    def __call__(self, path, reason):
        self.paths.append(path)
        line = command.one_line(f"skipped {path}: {reason}")
        if self.waiting is None:
            self._write(line)
        else:
            self.waiting.append(line)

    def release(self):
        """A photograph was read: write what is waiting, and from now on at once."""
        waiting, self.waiting = self.waiting or (), None
        for line in waiting:
            self._write(line)

    def _write(self, line):
        from tqdm import tqdm

        # A name that is no valid UTF-8 must not end the run.
        encoding = sys.stderr.encoding or "utf-8"
        tqdm.write(line.encode(encoding, "replace").decode(encoding), file=sys.stderr)


def photo_paths(folder, skipped):
    """The files below `folder`; raises `Failure` when there are none."""
    from common.imagenet import photos

    paths = list(photos.walk(folder, skipped))
    if not paths:
        raise Failure(f"no image in {files.show(folder)}: it holds no file")
    return paths


def attack_all(model, args, paths, done, target, first, skipped):
    """Attack the photographs that are not `done`; yields the CSV rows of each batch."""
    from tqdm import tqdm

    from common.imagenet import photos

    side = model.input_shape[1]
    share = distribution.sharing(model, args.strategy)
    todo = [path for path in paths if path not in done]
    with tqdm(total=len(paths), initial=len(paths) - len(todo), unit="photo", disable=None) as bar:
        for batch, pixels in photos.stream(args.images, todo, side, args.batch_size, skipped):
            y_true = [labels.of_folder(os.path.basename(_folder(args, path))) for path in batch]
            yield attack(model, args, batch, pixels, y_true, target, first, share)
            bar.update(len(batch))


def _folder(args, path):
    return os.path.dirname(os.path.join(args.images.resolve(), path))


def attack(model, args, paths, pixels, y_true, target, first, share):
    """One batch: attack, save, look at what was saved; returns its CSV rows.

    pixels: uint8 (n, side, side, 3).  y_true: n labels, None where unknown.  share: runs a
    function of the model and a part of the images on each device, as `distribution.sharing` says.
    """
    from method2_fgsm import fgsm

    def predict(x):
        return share(lambda model, x: model.predict_on_batch(x), x)

    def step(model, x, y):
        targeted = target is not None
        return fgsm.fgsm(model, x, y, args.eps, targeted=targeted, batch_size=len(x))

    x = pixels.astype(np.float32) / np.float32(255)
    logits = predict(x)
    y_pred = logits.argmax(axis=1)
    known = np.array([label is not None for label in y_true])
    y = np.array([p if t is None else t for t, p in zip(y_true, y_pred, strict=True)], np.int64)
    y_attacked = y if target is None else np.full_like(y, target)
    x_adv = share(step, x, y_attacked)
    logits_adv = predict(x_adv)
    counted = y == y_pred if target is None else (y == y_pred) & (y_pred != target)

    def fools(labels):
        succeeded = labels != y_pred if target is None else labels == target
        return np.where(counted, succeeded.astype(int).astype(str), "")

    noise = x_adv - x
    columns = {
        "path": paths,
        "y_pred": y_pred,
        "confidence": _shown(_confidence(logits)),
        "y_pred_adversarial": logits_adv.argmax(axis=1),
        "confidence_adversarial": _shown(_confidence(logits_adv)),
        # Five digits: the next ones are float32's rounding of x_adv - x.
        "linf": _shown(np.abs(noise).max(axis=(1, 2, 3)), 5),
        "l2": _shown(np.linalg.norm(noise.reshape(len(noise), -1), axis=1), 5),
        "fools": fools(logits_adv.argmax(axis=1)),
        "y_true": np.where(known, y.astype(str), ""),
        "top5": np.where(known, _among_five(logits, y), ""),
        "top5_adversarial": np.where(known, _among_five(logits_adv, y), ""),
    }
    if args.save_images:
        saved = save(args.save_images, paths, pixels, x_adv)
        logits_8bit = predict(saved.astype(np.float32) / np.float32(255))
        change = np.abs(saved.astype(int) - pixels).max(axis=(1, 2, 3))
        columns |= {
            "y_pred_8bit": logits_8bit.argmax(axis=1),
            "confidence_8bit": _shown(_confidence(logits_8bit)),
            "linf_8bit": _shown(change / 255, 5),
            "fools_8bit": fools(logits_8bit.argmax(axis=1)),
        }
    first.add(model, paths, counted, x, noise, y, logits, logits_adv, y_attacked)
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _confidence(logits):
    return models.softmax(logits).max(axis=1)


def _among_five(logits, y):
    """Whether y is one of the five largest logits: "1" or "0", (n,)."""
    ahead = (logits > np.take_along_axis(logits, y[:, np.newaxis], axis=1)).sum(axis=1)
    return (ahead < 5).astype(int).astype(str)


def _shown(values, digits=6):
    return [f"{value:.{digits}g}" for value in values]


def round_to_8_bits(pixels, x_adv):
    """The adversarial images as uint8, rounded towards the original `pixels` (uint8).

    No value moves further from the original than in x_adv, so epsilon still holds.
    """
    change = x_adv.astype(np.float64) * 255 - pixels
    # A thousandth is float32's rounding: 2 / 255 comes as 1.99999 or 2.00001 levels.
    levels = np.trunc(change + np.copysign(1e-3, change))
    return (pixels + levels).astype(np.uint8)


def save(folder, paths, pixels, x_adv):
    """Write the adversarial images as PNG and return them as they are read back, uint8."""
    from common.imagenet import photos

    saved = []
    for path, image in zip(paths, round_to_8_bits(pixels, x_adv), strict=True):
        png = Path(folder, f"{path}.png")
        with files.writing(png):
            png.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(png) as temporary:
            photos.save(temporary, image)
        saved.append(photos.read(png, image.shape[0]))
    return np.stack(saved)


class First:
    """The first photographs that count, for the figure: at most `KEPT`, kept in a file.

    The file is written before the rows of the batch, and what is in it already is not taken
    again, so after an interruption nothing is missing and nothing double.
    """

    COLUMNS = frozenset(
        {"confidences", "confidences_adversarial", "signs", "y_preds_sign", "confidences_sign"}
    )

    def __init__(self, path, settings, kept):
        self.path, self.settings = path, settings
        if kept is not None and len(kept["xs"]):
            shapes = {name: kept[name].shape for name in ("xs", "signs") if name in kept}
            image = (networks.SIDE, networks.SIDE, 3)
            if not self.COLUMNS.issubset(kept) or any(s[1:] != image for s in shapes.values()):
                raise Failure(
                    f"{files.show(path)} does not hold the first photographs of a run: start "
                    "again without --resume"
                )
        self.paths = [] if kept is None else kept["config"]["paths"]
        self.arrays = None if kept is None else {k: v for k, v in kept.items() if k != "config"}
        self.save()

    def add(self, model, paths, counted, x, noise, y, logits, logits_adv, y_attacked):
        from method2_fgsm import fgsm

        new = [i for i in np.flatnonzero(counted) if paths[i] not in self.paths]
        new = new[: KEPT - len(self.paths)]
        if not new:
            return
        sign = fgsm.gradient_signs(model, x[new], y_attacked[new])
        # The sign as a picture: -1 black, 0 grey, 1 white in each colour.
        logits_sign = model.predict_on_batch((sign + 1) / 2)
        added = {
            "xs": x[new],
            "noises": noise[new],
            "y_trues": y[new],
            "y_preds": logits[new].argmax(axis=1),
            "y_preds_adversarial": logits_adv[new].argmax(axis=1),
            "confidences": _confidence(logits[new]),
            "confidences_adversarial": _confidence(logits_adv[new]),
            "signs": sign,
            "y_preds_sign": logits_sign.argmax(axis=1),
            "confidences_sign": _confidence(logits_sign),
        }
        self.paths += [paths[i] for i in new]
        if self.arrays is None or not len(self.arrays["xs"]):
            self.arrays = added
        else:
            self.arrays = {k: np.concatenate([self.arrays[k], added[k]]) for k in added}
        self.save()

    def save(self):
        empty = np.zeros((0, networks.SIDE, networks.SIDE, 3), np.float32)
        arrays = self.arrays or {
            "xs": empty,
            "noises": empty,
            **{key: [] for key in ("y_trues", "y_preds", "y_preds_adversarial")},
        }
        results.save(self.path, config=self.settings | {"paths": self.paths}, **arrays)


def table(rows, args):
    """The closing table, from all the rows of the file."""
    n = counted = fooled = labelled = fooled_8bit = 0
    before, after, confidence, largest = [0, 0], [0, 0], 0.0, 0.0
    for row in rows:
        n += 1
        counted += row["fools"] != ""
        fooled += row["fools"] == "1"
        fooled_8bit += row["fools_8bit"] == "1"
        if row["fools"] == "1":
            confidence += float(row["confidence_adversarial"])
        largest = max(largest, float(row["linf"]))
        if row["y_true"] != "":
            labelled += 1
            before[0] += row["y_pred"] == row["y_true"]
            before[1] += row["top5"] == "1"
            after[0] += row["y_pred_adversarial"] == row["y_true"]
            after[1] += row["top5_adversarial"] == "1"

    def share(part, whole):
        return f"{part:7d}  {part / whole:6.1%}" if whole else f"{part:7d}"

    title = networks.TITLES[args.model]
    goal = "" if args.target is None else f", target {labels.names()[labels.index_of(args.target)]}"
    lines = [
        f"{title}, fast gradient sign, eps {args.eps:g} ({args.eps * 255:.3g} / 255){goal}",
        f"photographs          {n:7d}",
        f"left out             {n - counted:7d}  (wrong, or the target, before the attack)",
        f"fooled               {share(fooled, counted)}",
    ]
    if args.save_images:
        lines.append(f"fooled after 8 bits  {share(fooled_8bit, counted)}")
    if fooled:
        lines.append(f"mean confidence in the wrong label {confidence / fooled:.1%}")
    lines.append(f"largest noise        {largest:7.5f}")
    if labelled:
        lines.append(f"with a known label   {labelled:7d}   top-1   top-5")
        for name, (one, five) in (("before", before), ("after", after)):
            lines.append(f"  {name:26}  {one / labelled:6.1%}  {five / labelled:6.1%}")
    return "\n".join(lines)


if __name__ == "__main__":
    command.run(main)

"""What becomes of a batch of photographs: attacked, saved, and a row of the CSV for each, whose
columns common/README.md explains."""

import csv
import functools
import itertools
from pathlib import Path

import numpy as np

from common import command, files
from common.command import Failure
from common.networks import mnist, own_model
from common.run import attack_run, photos
from common.search.random_numbers import generators
from common.search.treatments import NAMED, on_its_way, sent, treated

COLUMNS = (
    "path", "y_pred", "confidence", "y_pred_adversarial", "confidence_adversarial",
    "linf", "l2", "distortion", "fools", "y_true", "top5", "top5_adversarial", "y_target", "steps",
    "y_pred_8bit", "confidence_8bit", "linf_8bit", "l2_8bit", "changed_8bit", "fools_8bit",
    "y_pred_whole", "y_pred_messenger", *(f"y_pred_{name}" for name in NAMED), "survives",
)  # fmt: skip
# A file name need not be valid UTF-8; this brings it into the file and back as it was.
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
# What the closing table averages of a search, over the photographs, or PNGs, that fool.
MEANS = {
    "l2": "|r|_2, mean          {:7.4f}",
    "linf": "|r|_inf, mean        {:7.4f}",
    "distortion": "distortion, mean     {:7.5f}",
    "steps": "steps, mean          {:7.1f}",
    "l2_8bit": "8 bits: |r|_2, mean  {:7.4f}",
    "changed_8bit": "8 bits: changed      {:7.1%}  (of the values)",
    "confidence_8bit": "8 bits: confidence   {:7.1%}  (mean)",
    "survives": "survived, mean       {:7.1%}  (of 100 random treatments)",
}
DRAWS = 100  # for `survives`


def attack_batch(network, attack, saving, to_8_bits, for_figure, confidence, batch):
    """Attack what was read, save its files, and look at original, adversarial image and files.

    saving: None, or (the photographs' folder, that of the files, JPEG quality, all treatments?).
    confidence: what the new answer has to be surer than, to count.
    batch: what `photos.read_batch` makes of ((path, label or None, target or None) each, for a
    figure?).  Returns rows, their arrays for the figure (or an empty dict), and what was skipped.
    """
    photographs, pixels, skipped, drawn = batch
    if not photographs:
        return [], {}, skipped
    paths, labels, targets = zip(*photographs, strict=True)
    model, judge = own_model.load(network)
    x = pixels / np.float32(255)
    seen = {"": own_model.answers(model, judge, x)}
    y_preds = seen[""][0]
    y = np.array([p if label is None else label for label, p in zip(labels, y_preds, strict=True)])
    aim = y if targets[0] is None else np.array(targets)
    x_adv, *seen["_adversarial"], steps = attack_run.attack_batch(network, attack, (x, aim))
    noises, later, messages = {"": x_adv - x}, {}, {}
    if saving:
        folder, pngs, quality, treat = saving
        images = zip(paths, to_8_bits(model, pixels, x_adv, aim), strict=True)
        saved = [photos.save_png(Path(pngs, f"{path}.png"), image) for path, image in images]
        seen["_8bit"] = own_model.answers(model, judge, np.stack(saved) / np.float32(255))
        noises["_8bit"] = (np.stack(saved).astype(int) - pixels) / 255
        wholes = (
            photos.save_whole(Path(pngs, f"{path}.whole.jpg"), Path(folder, path), noise, quality)
            for path, noise in zip(paths, noises["_8bit"], strict=True)
        )
        look = functools.partial(own_model.answers, model, judge)
        later, messages = look_later(look, np.stack(saved), wholes, targets, y_preds, treat)

    columns = {"path": paths, "y_true": labels, "y_target": targets, **later}
    columns["steps"] = [None] * len(x) if steps is None else steps
    for kind, (now, logits) in seen.items():
        columns["y_pred" + kind] = now
        columns["confidence" + kind] = mnist.softmax(logits).max(axis=1)
        columns["top5" + kind] = [
            None if label is None else int((z > z[label]).sum() < 5)
            for z, label in zip(logits, labels, strict=True)
        ]
    for kind, noise in noises.items():
        flat = noise.reshape(len(noise), -1)
        columns["linf" + kind] = np.abs(flat).max(axis=1)
        columns["l2" + kind] = np.linalg.norm(flat, axis=1)
        columns["distortion" + kind] = columns["l2" + kind] / np.sqrt(flat.shape[1])
        columns["changed" + kind] = (flat != 0).mean(axis=1)
        now, p = (columns[name + (kind or "_adversarial")] for name in ("y_pred", "confidence"))
        now = np.where(p.astype(np.float64) > confidence, now, y_preds)
        columns["fools" + kind] = list(map(_fools, y_preds, now, labels, targets))
    figure = {}
    if drawn:
        figure = {"paths": np.array(paths), "xs": x, "noises": noises[""], "y_trues": y}
        for name, kind in itertools.product(("y_pred", "confidence"), ("", "_adversarial")):
            figure[f"{name}s{kind}"] = columns[name + kind]
        figure |= {} if aim is y else {"y_targets": aim}
        figure |= {} if steps is None else {"steps": steps}
        figure |= for_figure(model, x, aim) if for_figure else {}
        figure |= messages
    texts = ([_text(name, value) for value in column] for name, column in columns.items())
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*texts, strict=True)]
    return rows, figure, skipped


def look_later(look, saved, wholes, targets, y_preds, treat):
    """What the network says of the files once they are treated: columns, arrays for the figure.

    look(x) -> (labels, logits).  saved: uint8 (n, h, w, 3).  wholes: yields the whole photographs,
    of Pillow.  treat: whether all treatments are tried, or the whole photographs alone.
    """
    images = {"whole": [], **({"messenger": []} if treat else {})}
    for whole in wholes:
        for part in images:
            image = whole if part == "whole" else sent(whole)
            images[part].append(photos.cut(image, saved.shape[1:3]))
    if treat:
        images |= {name: [treated(image, how) for image in saved] for name, how in NAMED.items()}
    answers = {name: look(np.stack(parts) / np.float32(255)) for name, parts in images.items()}
    columns = {f"y_pred_{name}": labels for name, (labels, _) in answers.items()}
    if not treat:
        return columns, {}
    columns["survives"] = []
    for image, rng, target, y in zip(saved, generators(saved, 2), targets, y_preds, strict=True):
        draws = np.stack([treated(image, on_its_way, rng) for _ in range(DRAWS)])
        now, _ = look(draws / np.float32(255))
        columns["survives"].append((now != y if target is None else now == target).mean())
    now, logits = answers["messenger"]
    confidences = mnist.softmax(logits).max(axis=1)
    sent_on = {"y_preds_sent": now, "confidences_sent": confidences}
    return columns, sent_on | {"sent": np.stack(images["messenger"]) / np.float32(255)}


def _fools(was, now, label, target):
    """Whether the attack succeeded: 1 or 0, None for a photograph that does not count."""
    if label not in (None, was) or was == target:
        return None
    return int(now != was if target is None else now == target)


def _text(name, value):
    """A value for the CSV: of a size five digits, since the next ones are float32's rounding."""
    digits = 6 if name.startswith("confidence") else 5
    return f"{value:.{digits}g}" if isinstance(value, np.floating) else value


def write(path, rows):
    """Write a CSV file, or a part of one, of dicts: what is no column is left out."""
    with files.replacing(path) as temporary, open(temporary, "w", **ENCODING) as file:
        # Lines end as RFC 4180 has it, so that a name with either half of that is put in quotes.
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def read(path):
    """Yield the rows of a CSV file, or of a part of one: dicts of strings."""
    with open(path, **ENCODING) as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != list(COLUMNS):
            raise Failure(f"{files.show(path)} has no photographs: start again without --resume")
        yield from reader


def summary(path):
    """The closing table's lines of a CSV file, and how many rows there are."""
    rows = [[float(row[name] or "nan") for name in COLUMNS[1:]] for row in read(path)]
    of = dict(zip(COLUMNS[1:], np.array(rows).T, strict=True))
    known, left_out = np.isfinite(of["y_true"]), np.isnan(of["fools"]).sum()
    lines = [
        f"photographs          {len(rows):7d}",
        f"left out             {left_out:7d}  (wrong, or the target, before the attack)",
    ]
    fooled = {when: of["fools" + when] == 1 for when in ("", "_8bit")}
    for when, title in (("", "fooled"), ("_8bit", "fooled after 8 bits")):
        if not when or np.isfinite(of["y_pred_8bit"]).any():
            share = fooled[when].sum() / max(np.isfinite(of["fools" + when]).sum(), 1)
            lines.append(f"{title:20} {fooled[when].sum():7d}  {share:6.1%}")
    if fooled[""].any():
        mean = of["confidence_adversarial"][fooled[""]].mean()
        lines.append(f"mean confidence in the wrong label {mean:.1%}")
    lines.append(f"largest noise        {of['linf'].max():7.5f}")
    if known.any():
        lines.append(f"with a known label   {known.sum():7d}   top-1   top-5")
        for name, when in (("before", ""), ("after", "_adversarial")):
            top1 = (of["y_pred" + when] == of["y_true"])[known].mean()
            lines.append(f"  {name:26}  {top1:6.1%}  {of['top5' + when][known].mean():6.1%}")
    for name, line in MEANS.items():
        fools = fooled["_8bit" if name.endswith("_8bit") else ""]
        if np.isfinite(of["steps"]).any() and np.isfinite(of[name][fools]).any():
            lines.append(line.format(of[name][fools].mean()))
    counted = np.isfinite(of["fools"])
    titles = [f"of {counted.sum()}, after", "lost their label", "are their target"]
    later = [titles] if np.isfinite(of["survives"]).any() else []
    for name in ("8bit", *NAMED, "whole", "messenger") if later else ():
        now = of[f"y_pred_{name}"][counted]
        lost, hit = (now != of["y_pred"][counted]).sum(), (now == of["y_target"][counted]).sum()
        later.append([name, lost, hit][: 3 if np.isfinite(of["y_target"]).any() else 2])
    return lines + ([command.table(later[0], later[1:])] if later else []), len(rows)

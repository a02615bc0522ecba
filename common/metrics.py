"""How good a classifier is: confusion matrix, precision, recall."""

import numpy as np


def confusion_matrix(actual, predicted, classes=10):
    """Counts (classes, classes) int64: row the actual label, column the predicted one."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (actual, predicted), 1)
    return counts


def precision_and_recall(confusion):
    """For each class: the share of its predictions that are right, and of its members found.

    Returns two float64 (classes,) arrays, NaN where a class was never predicted or never occurs.
    """
    right = np.diag(confusion).astype(float)
    predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return right / predicted, right / actual


def table(confusion):
    """The confusion matrix with precision and recall beside it, as text to print."""
    precision, recall = precision_and_recall(confusion)
    digits = range(len(confusion))
    lines = ["actual  predicted as" + " " * (6 * len(confusion) - 13) + "recall  precision"]
    lines.append("      " + "".join(f"{digit:6d}" for digit in digits))
    for digit in digits:
        counts = "".join(f"{count:6d}" for count in confusion[digit])
        lines.append(f"{digit:6d}{counts}   {recall[digit]:6.1%}     {precision[digit]:6.1%}")
    return "\n".join(lines)

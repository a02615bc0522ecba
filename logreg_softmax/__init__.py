"""Softmax regression, the linear classifier, and what is special about it."""

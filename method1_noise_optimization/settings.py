"""The methods by name, and their defaults: apart, so that `--help` needs no TensorFlow."""

METHODS = ("sgd", "lbfgs", "minimal")
REGULARIZATIONS = ("none", "l1", "l2")
LEARNING_RATE = 0.008  # of sgd
MAX_STEPS = {"sgd": 1000, "lbfgs": 50, "minimal": 60}
BATCH_SIZE = {"sgd": 1000, "lbfgs": 500, "minimal": 500}

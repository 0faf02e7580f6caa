"""A benchmark of how robust ControlNet training is: build, train, generate, evaluate, compare."""

"""The machinery under the commands: datasets on disk, bases, training, sampling, pictures."""

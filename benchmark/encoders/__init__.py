"""What turns images or texts into vectors: one file each, named as on the command line."""

"""Small tools without knowledge of the benchmark: errors, files, images, seeds, provenance, console."""

"""Where samples come from: one file each, named as on the command line."""

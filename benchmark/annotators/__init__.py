"""What turns images into maps: one file each, named as on the command line."""

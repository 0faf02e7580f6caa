"""What turns observation tables into scores: one file each, named as on the command line."""

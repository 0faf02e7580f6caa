"""How control is attached to a frozen U-Net: one file each, named as on the command line."""

"""Names and colours of the `scenes` world: what a caption can say and what a segmentation map can hold."""

KINDS = ("sphere", "cube", "cylinder", "cone")
SIZES = {"small": 0.55, "large": 0.9}
MATERIALS = ("matte", "shiny", "striped")

# Linear-light albedo of the paints, chosen to stay apart after shading at 64 x 64.
COLOURS = {
    "red": (0.75, 0.05, 0.04),
    "orange": (0.95, 0.33, 0.02),
    "yellow": (0.95, 0.78, 0.06),
    "green": (0.06, 0.42, 0.07),
    "cyan": (0.06, 0.66, 0.70),
    "blue": (0.04, 0.12, 0.72),
    "purple": (0.34, 0.06, 0.52),
    "white": (0.90, 0.90, 0.88),
}

# name -> (phrase in a caption, linear albedo of the two tones)
GROUNDS = {
    "wooden": ("on a wooden floor", (0.42, 0.22, 0.09), (0.31, 0.15, 0.06)),
    "tiled": ("on a tiled floor", (0.50, 0.50, 0.48), (0.28, 0.29, 0.30)),
    "grassy": ("on grass", (0.20, 0.36, 0.08), (0.11, 0.24, 0.05)),
    "sandy": ("on sand", (0.70, 0.55, 0.34), (0.58, 0.44, 0.25)),
}
WALLS = {
    "grey": (0.50, 0.50, 0.52),
    "cream": (0.72, 0.64, 0.48),
    "teal": (0.18, 0.36, 0.38),
    "pink": (0.66, 0.36, 0.38),
}

# Segmentation classes of the world, in id order, with the colour that shows them.
SEG_CLASSES = ("wall", "floor", *KINDS)
SEG_COLOURS = ((120, 120, 120), (80, 50, 50), (255, 61, 61), (61, 230, 250), (255, 194, 7), (150, 5, 255))

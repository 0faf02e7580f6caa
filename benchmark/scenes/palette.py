"""Names and colours of the `scenes` world: what a caption can say and what a segmentation map can hold."""

SOLIDS = ("sphere", "cube", "cylinder", "cone")
PERSON = "person"
KINDS = (*SOLIDS, PERSON)

# Half the height of a solid and the height of a figure, in metres, before the scene's scale; figures are called
# short and tall.
SIZES = {"small": 0.50, "large": 0.86}
STATURES = {"small": 1.75, "large": 2.60}
STATURE_WORDS = {"small": "short", "large": "tall"}

MATERIALS = ("matte", "glossy", "striped")
FABRICS = ("matte", "striped")  # what a figure's shirt can be

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

SKINS = ((0.80, 0.52, 0.38), (0.62, 0.36, 0.22), (0.38, 0.20, 0.11), (0.20, 0.10, 0.06))
HAIRS = ((0.02, 0.015, 0.01), (0.10, 0.05, 0.02), (0.45, 0.28, 0.10), (0.30, 0.30, 0.31))
TROUSERS = (0.035, 0.045, 0.075)

# name -> linear albedo of the two tones
GROUNDS = {
    "wooden": ((0.42, 0.22, 0.09), (0.29, 0.14, 0.055)),
    "tiled": ((0.52, 0.52, 0.50), (0.27, 0.28, 0.30)),
    "grassy": ((0.20, 0.36, 0.08), (0.11, 0.24, 0.05)),
    "sandy": ((0.70, 0.55, 0.34), (0.58, 0.44, 0.25)),
}
GROUND_PHRASES = {
    "wooden": "on a wooden floor",
    "tiled": "on a tiled floor",
    "grassy": "on grass",
    "sandy": "on sand",
}
WALLS = {
    "plain": ((0.52, 0.52, 0.54), (0.46, 0.46, 0.48)),
    "brick": ((0.42, 0.17, 0.11), (0.55, 0.48, 0.42)),
    "panelled": ((0.70, 0.62, 0.47), (0.50, 0.43, 0.31)),
    "papered": ((0.20, 0.38, 0.40), (0.30, 0.50, 0.50)),
}

# Segmentation classes of the world, in id order, with the colour that shows them.
SEG_CLASSES = ("wall", "floor", *KINDS)
SEG_COLOURS = (
    (120, 120, 120),
    (80, 50, 50),
    (255, 61, 61),
    (61, 230, 250),
    (255, 194, 7),
    (150, 5, 255),
    (61, 255, 61),
)

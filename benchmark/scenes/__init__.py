"""The bundled world: a procedural renderer with exact truth, and small models trained on it."""

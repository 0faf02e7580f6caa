"""Files of weights, damaged in a way that libraries pass over."""

from pathlib import Path

from safetensors.torch import load_file, save_file


def without_weight(folder: Path, part: str) -> str:
    """Take the weights whose names hold `part` out of the one safetensors file of a folder; return the first's name."""
    (path,) = folder.glob("*.safetensors")
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    gone = sorted(name for name in tensors if part in name)
    save_file({name: tensor for name, tensor in tensors.items() if name not in gone}, path, {"format": "pt"})
    return str(gone[0])

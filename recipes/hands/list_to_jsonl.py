"""Writes a list or a table of PyTorch (`.pt`) as JSON lines or JSON, which run no code and are read line by line.

    python recipes/hands/list_to_jsonl.py datalist_train_complete.pt datalist_train_complete.jsonl
    python recipes/hands/list_to_jsonl.py --trust path2id_train.pt path2id_train.json

With ``--trust`` the file is unpickled whole: whoever made it can run anything here. Give your own files alone.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskcast.data.sources.hand_lists import load_pt
from maskcast.errors import one_line_errors


def _plain(value: Any) -> Any:
    """Returns an array, or a NumPy number, as JSON types."""
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def main() -> None:
    """Converts a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--trust", action="store_true", help="unpickle it, which may run code")
    args = parser.parse_args()
    if not args.source.is_file():
        parser.error(f"{args.source}: no such file; give a list or a table as .pt")
    content = torch.load(args.source, weights_only=False) if args.trust else load_pt(args.source)
    partial = args.out.with_name(args.out.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for entry in [content] if isinstance(content, dict) else content:
            file.write(json.dumps(entry, default=_plain) + "\n")
    partial.replace(args.out)
    print(f"wrote {len(content)} entries: {args.out}")


if __name__ == "__main__":
    with one_line_errors():
        main()

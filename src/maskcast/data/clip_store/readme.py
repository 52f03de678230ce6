"""The README of a clip store, for readers without maskcast."""

README = """# A maskcast clip store

Readable with numpy, json and zstandard alone:

```python
import json, pathlib, numpy as np, zstandard
index = json.loads(pathlib.Path("index.json").read_text())
clips = [json.loads(line) for line in pathlib.Path("clips.jsonl").read_text().splitlines()]
clip = clips[0]
if span := clip["frames"]:  # null where the store holds no frames
    shard = np.load(span["shard"], mmap_mode="r")
    frames = shard[span["start"] : span["start"] + span["size"]]  # (T, H, W, 3) uint8
label_map = index["maps"][0]  # its name, kind and classes
if layer := clip["layers"].get("labels/" + label_map["name"]):  # absent where the clip has no masks of this map
    with open(layer["shard"], "rb") as f:
        f.seek(layer["start"])
        packed = [f.read(size) for size in layer["chunks"]]  # index["chunk_frames"] frames each, the last the rest
    data = b"".join(zstandard.ZstdDecompressor().decompress(chunk) for chunk in packed)
    dtype = np.uint16 if label_map["kind"] == "instances" else np.uint8
    masks = np.frombuffer(data, dtype).reshape(clip["num_frames"], index["height"], index["width"])
```

A map of kind `classes` holds class ids, 255 = no label; one of kind `instances` ids of objects, 0 = none, whose
classes stand in the clip's `objects`; one of kind `alpha` the opacity of the foreground, 255 = 1.
`confidence/<map>` is stored likewise, uint8, 255 = certain. `kind` of a clip tells a labelled (true masks), an
unlabelled and a hidden clip apart; `split` says what it may be used for. `shards` gives the sha256 of each file
(`maskcast.ClipStore(folder).verify()` compares them), `skipped` lists what was left out and why. `groups` counts
the clips of the same split, kind and layers. `clips.npy` holds of each clip where its line ends, how many frames
it has, a hash of its id and the number of its group.
"""

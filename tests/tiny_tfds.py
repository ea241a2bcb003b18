"""Writes small but real TFDS folders, for tests that read one through `sbjax.data.load`.

`tests` is no package, so this module is loaded by its path: see the fixture in `tests/data/conftest.py`.
"""

import io
import json
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from sbjax.data.digits import load_digits

VERSIONS = {"cifar10": "3.0.2", "mnist": "3.0.1"}


def tiny_images(count: int, shape=(32, 32, 3), first: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """`count` digits enlarged to `shape`, channels differing in brightness; (None, None, c): many sizes."""
    digits = load_digits()
    images = []
    for i in range(first, first + count):
        height, width = (20 + i % 7, 20 + i % 5) if shape[0] is None else shape[:2]
        grey = Image.fromarray(digits.train_images[i, ..., 0]).resize((width, height))
        scale = 1 - 0.25 * np.arange(shape[2])
        images.append((np.asarray(grey)[..., None] * scale).astype(np.uint8))
    return images, digits.train_labels[first : first + count]


def write_tiny_tfds(
    data_dir,
    name: str = "cifar10",
    shape=(32, 32, 3),
    train: int = 60,
    test: int = 20,
    *,
    splits: dict[str, int] | None = None,
    version: str | None = None,
    config: str | None = None,
    features: dict | None = None,
    supervised: bool = True,
    info: dict | None = None,
    hidden: str | None = None,
    extra: dict[str, tuple[dict, bytes | int | tuple[float, ...]]] | None = None,
    label_names: list[str] | None = None,
) -> Path:
    """Writes data_dir/name[/config]/version as TFDS prepares it (array_record, PNG); returns the folder.

    Split number s holds the `tiny_images` from 500 s on. `splits` (name -> examples) replaces `train` and
    `test`, `features` is merged into the feature dictionary, `info` into dataset_info.json. `hidden` names a
    split whose labels are all -1. `extra` gives further features, each with the value that all examples have;
    `label_names` names the labels, which are taken modulo their number.
    """
    splits = splits or {"train": train, "test": test}
    extra, label_names = extra or {}, label_names or [f"digit {i}" for i in range(10)]
    version = version or VERSIONS.get(name, "1.0.0")
    folder = Path(data_dir, name, config or "", version)
    folder.mkdir(parents=True)
    split_infos = []
    for number, (split, count) in enumerate(splits.items()):
        images, labels = tiny_images(count, shape, first=500 * number)
        writer = ArrayRecordWriter(str(folder / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1")
        for image, label in zip(images, labels):
            writer.write(_example(image, -1 if split == hidden else int(label) % len(label_names), extra))
        writer.close()
        split_infos.append(
            {
                "name": split,
                "shardLengths": [str(count)],
                "numBytes": str(sum(image.size for image in images)),
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    (folder / "dataset_info.json").write_text(
        json.dumps(
            {
                "name": name,
                "version": version,
                "fileFormat": "array_record",
                "splits": split_infos,
                **({"configName": config} if config else {}),
                **({"supervisedKeys": _supervised("image", "label")} if supervised else {}),
                **(info or {}),
            }
        )
    )
    (folder / "features.json").write_text(
        json.dumps(
            {
                "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
                "featuresDict": {
                    "features": {
                        "image": image_feature(shape),
                        "label": label_feature(len(label_names)),
                        **{name: feature for name, (feature, _) in extra.items()},
                        **(features or {}),
                    }
                },
            }
        )
    )
    (folder / "label.labels.txt").write_text("\n".join(label_names) + "\n")
    return folder


def image_feature(shape, dtype: str = "uint8") -> dict:
    dimensions = [str(-1 if size is None else size) for size in shape]
    return {
        "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
        "image": {"shape": {"dimensions": dimensions}, "dtype": dtype, "encodingFormat": "png"},
    }


def label_feature(classes: int = 10) -> dict:
    return {
        "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
        "classLabel": {"numClasses": str(classes)},
    }


def text_feature() -> dict:
    return {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}


def box_feature() -> dict:
    return {
        "pythonClassName": "tensorflow_datasets.core.features.bounding_boxes.BBoxFeature",
        "boundingBox": {"shape": {"dimensions": ["4"]}, "dtype": "float32"},
    }


def _supervised(*keys: str) -> dict:
    return {"tuple": {"items": [{"featureKey": key} for key in keys]}}


def _example(image: np.ndarray, label: int, extra: dict) -> bytes:
    png = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(png, "PNG")
    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(png.getvalue())
    example.features.feature["label"].int64_list.value.append(label)
    for name, (_, value) in extra.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.float_list.value.extend(value)
    return example.SerializeToString()

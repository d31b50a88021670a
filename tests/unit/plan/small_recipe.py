"""A recipe whose net and head are small enough for a test."""

from manyface.config import Config


def recipe(**head: object) -> Config:
    return Config.model_validate(
        {
            "run": {"device": "cpu", "threads": 1, "precision": "fp32"},
            "data": {"image_size": 32, "synthetic": {"num_identities": 300}},
            "backbone": {
                "name": "small",
                "embedding_size": 16,
                "stem_width": 4,
                "widths": [8],
                "depths": [0],
            },
            "head": head,
            "optimizer": {"learning_rate": 1e-5},  # for so small a batch of so short embeddings
            "train": {"batch_size": 8},
        }
    )

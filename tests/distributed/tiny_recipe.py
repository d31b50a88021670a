"""The recipe of runs that tests make whole: eight steps on 24 people."""

TINY = [
    "data.image_size=32",
    "data.synthetic.num_identities=24",
    "data.synthetic.images_per_identity=3",
    "backbone.name=tiny",
    "backbone.embedding_size=16",
    "head.scale=16",
    "optimizer.learning_rate=0.05",
    "schedule.steps=8",
    "schedule.warmup_steps=2",
    "augmentation.shift=2",
    "augmentation.brightness=0.2",
    "train.batch_size=6",
    "train.log_every=1",
    "train.checkpoint_every=3",
    "evaluation.every_steps=4",
    "evaluation.num_pairs=40",
    "evaluation.num_identities=30",
    "evaluation.folds=2",
]

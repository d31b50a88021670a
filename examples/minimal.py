"""A whole trainer on one page: faces, net, head, loop, score. Needs neither network nor GPU.

python examples/minimal.py            # about two minutes on two cores
"""

import argparse

import torch

import manyface as mf
from manyface.data import Augmentation, Loader
from manyface.data.synthetic import SyntheticFaces
from manyface.evaluate import PairEvaluator, make_embed_function, synthetic_pairs

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=600)
parser.add_argument("--identities", type=int, default=2000)
parser.add_argument("--sample-rate", type=float, default=0.1)
options = parser.parse_args()

# 1. Data: people to learn from, and other people to be judged on.
train = SyntheticFaces(num_identities=options.identities, images_per_identity=20, image_size=48)
unseen = SyntheticFaces(
    num_identities=200, images_per_identity=6, image_size=48, first_identity=options.identities
)
loader = Loader(train, batch_size=64, seed=0, augmentation=Augmentation(flip=0.5, shift=2))

# 2. Net and head. `mf.FullFC` without sample_rate is the other head: nothing else changes.
backbone = mf.create_backbone("tiny", embedding_size=128, image_size=48)
head = mf.PartialFC(
    num_classes=train.num_identities,
    dim=128,
    margin=mf.CosFace(0.2),
    scale=32,
    sample_rate=options.sample_rate,
)
optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=options.steps)

# 3. Train. The head has no parameters in the optimizer: `step` moves the centers that took part.
#    They want a smaller learning rate than the net, the smaller the batch is: docs/heads.md.
for step, batch in enumerate(loader.batches(stop_step=options.steps), start=1):
    loss = head(backbone(batch.images), batch.labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    head.step(lr=0.03 * schedule.get_last_lr()[0])
    schedule.step()
    if step % 50 == 0 or step == options.steps:
        print(f"step {step:4d}  loss {loss.item():6.3f}")

# 4. Judge: are two pictures of one person? On people that training has never seen.
evaluate = PairEvaluator(synthetic_pairs(unseen, num_pairs=1000, seed=0))
for score in evaluate(make_embed_function(backbone)).scores:
    interval = "" if score.low is None else f"  [{score.low:.3f}, {score.high:.3f}]"
    print(f"{score.name:14s} {score.value:.3f}{interval}")

"""CIFAR-10 with one group, k = 1: rectified flow (Eq. 2), and the recipe of all CIFAR-10 configs.

  tfds build cifar10 --file_format=array_record    # once; needs tensorflow-cpu
  python -m gdm_jax.main --config=configs/cifar10_vanilla.py

EDM's recipe (Karras et al. 2022, Table 7) at full size: 55.7 M parameters, batch 512, 200 Mimg,
its augmentation with nine labels, and its learning rate: a linear ramp, then constant. That is one
reading of the paper's Appendix B; --config.train.anneal=200000000 is the other, a linear fall to 0
(docs/paper.md). By XLA's count a training image costs 121 GFLOP and the whole run 24 EFLOP: 28
hours of a device that sustains 240 TFLOP/s; a laptop needs a smaller --config.model.ddpmpp.channels
and --config.train.duration. A sample of 128 Euler steps costs 5.1 TFLOP.
"""

from configs import default


def get_config():
  config = default.get_config()
  config.data.update(name='tfds:cifar10', shape=(32, 32, 3), augment=0.12)
  config.evaluation.features = 'inception'
  return config

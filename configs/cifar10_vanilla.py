"""CIFAR-10 with one group, k = 1: rectified flow (Eq. 2), and the recipe of all CIFAR-10 configs.

  tfds build cifar10 --file_format=array_record    # once; needs tensorflow-cpu
  python -m gdm_jax.main --config=configs/cifar10_vanilla.py

EDM's recipe (Karras et al. 2022, Table 7) at full size: 55.7 M parameters, batch 512, 200 Mimg,
its augmentation with nine labels, linearly annealed as in the paper's Appendix B. By XLA's count a
training image costs 121 GFLOP and the whole run 24 EFLOP: 28 hours of a device that sustains 240
TFLOP/s; a laptop needs a smaller --config.model.ddpmpp.channels and --config.train.duration (and
--config.train.anneal). A sample of 128 Euler steps costs 5.1 TFLOP.
"""

from configs import default


def get_config():
  config = default.get_config()
  config.data.update(name='tfds:cifar10', shape=(32, 32, 3), augment=0.12)
  config.train.anneal = config.train.duration
  config.evaluation.features = 'inception'
  return config

"""CIFAR-10 in 3 x 3 blocks in random order, by the group-causal transformer.

  tfds build cifar10 --file_format=array_record    # once; needs tensorflow-cpu
  python -m gdm_jax.main --config=configs/cifar10_causal.py

21.1 M parameters in 289 tokens of 2 x 2 (blocks of 10 or 11 pixels). By XLA's count a training
image, which trains all nine conditionals, costs 81 GFLOP, and 200 Mimg 16 EFLOP: 19 hours of a
device that sustains 240 TFLOP/s. Recipe: `cifar10_vanilla.py`. It has not been trained.
"""

from configs import cifar10_blockwise


def get_config():
  config = cifar10_blockwise.get_config()
  config.model.name = 'group_causal'
  config.model.group_causal.update(patch=2, width=384, depth=12, heads=6, dropout=0.1)
  return config

"""Fashion-MNIST in four bands of the blur basis, by the group-causal transformer on coefficients.

  python -m gdm_jax.main --config=configs/fashion_causal_frequency.py

2.83 M parameters in 50 tokens, runs of 16 neighbouring ranks; 1.5 GFLOP a training image, 3/4 of
`fashion_causal`. No model of this config has been judged yet.
"""

from configs import fashion_causal, fashion_frequency


def get_config():
  config = fashion_causal.get_config()
  bands = fashion_frequency.get_config()
  config.update(basis=bands.basis, strategies=bands.strategies)
  config.model.space = 'frequency'
  config.sampling.cuts = bands.sampling.cuts
  return config

"""Installs gdm_jax; `requirements.txt` pins what it is tested with."""

import pathlib
import re

from setuptools import find_packages, setup

root = pathlib.Path(__file__).parent
version = re.search(r"__version__ = '(.+)'", (root / 'gdm_jax/__init__.py').read_text())[1]

setup(
  name='gdm_jax',
  version=version,
  description='Groupwise diffusion models in JAX',
  long_description=(root / 'README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=find_packages(include=('gdm_jax', 'gdm_jax.*')),
  # Lower bounds are what the tests have run with; older releases may do.
  install_requires=[
    'absl-py>=2.5',
    'clu>=0.0.12',
    'flax>=0.12.8',
    'grain>=0.2.18',
    'importlib_resources>=7.1',  # tensorflow-datasets imports it without requiring it
    'jax>=0.10.2',
    'jaxtyping>=0.3.11',
    'matplotlib>=3.11',
    'ml_collections>=1.1',
    'numpy>=2.4',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12.8',
    'pillow>=13.0',
    'scikit-learn>=1.9',
    'scipy>=1.17',
    'tensorflow-datasets>=4.9.10',
    'tqdm>=4.70',
  ],
  extras_require={
    'adaptive': ['diffrax>=0.7'],
    'tensorflow': ['tensorboard', 'tensorflow-cpu>=2.21'],
    'dev': ['hypothesis>=6.170', 'pytest>=9.2', 'pytest-xdist>=3.8', 'ruff>=0.17'],
  },
)

"""Groupwise diffusion models (GDM): sequential generation over groups of data, in JAX.

Read the method first, in this order; it needs jax and numpy alone:

  grouping     the partition of the data into groups S_j
  schedule     when each group diffuses (Eq. 10), and tables of signal levels
  basis        the orthogonal U of GDM-F (Section 3.4)
  path         how signal and noise mix (Eq. 1, 2)
  process      the three together: x_t and one step of the ODE (Eq. 6, 9)
  losses       what a network is trained on (Eq. 7, 8)
  solvers      step rules, Euler to adaptive
  sampling     generation, encoding, completion, sweeps of orders
  caching      the same with known groups computed once
  likelihood   log p(x), group by group
  latents      edits of latents, band by band (Section 4)
  allocation   how many steps each group gets
  conditionals what it costs to generate one group after others
  ordering     the best order of the groups
  autoregression  one element a group, one step each (Appendix C.1)

Then a run: `conditioning` (what the network is shown), `config` and `build`, and its parts:
`models`, `data`, `generation`, `training`, `evaluation`, `explore`, `modes`. `runtime` is what
these need of the machine. `load` gives a trained model.
"""

__version__ = '0.1.0'


def load(model):
  """A trained model by name, of a folder, or 'hf:user/model': see `pretrained.load`."""
  from gdm_jax import pretrained  # only here, so that importing the package stays cheap

  return pretrained.load(model)

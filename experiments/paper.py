"""The numbers of the paper that experiments compare their own with."""

TABLE_1 = {'bottom_top': 12.63, 'right_left': 13.14, 'cdm': 14.03, 'cdm_inv': 13.70}
"""Table 1: FID10K of the grouping strategies, k = 2 on CIFAR-10, Euler, 128 steps."""

Cuts = tuple[float, float, float]
"""The boundaries between four groups: t_end_4, t_end_3, t_end_2."""

GENERATION: tuple[Cuts, ...] = (
  *((0.1, 0.8, 0.9), (0.3, 0.8, 0.9), (0.7, 0.8, 0.9), (0.1, 0.2, 0.9)),
  *((0.1, 0.5, 0.9), (0.1, 0.2, 0.3), (0.1, 0.2, 0.5)),
)
"""The intervals of generation of Table 2, its columns."""

_FID10K: dict[Cuts, tuple[float, ...]] = {
  (0.1, 0.2, 0.5): (25.39, 29.47, 34.77, 25.58, 24.97, 25.98, 25.74),
  (0.3, 0.4, 0.7): (21.38, 29.39, 34.54, 21.16, 20.63, 21.42, 21.23),
  (0.5, 0.6, 0.9): (21.48, 31.68, 36.16, 20.74, 20.40, 20.66, 20.62),
  (0.6, 0.8, 0.9): (19.69, 27.75, 32.83, 17.60, 17.76, 17.41, 17.55),
  (0.7, 0.8, 0.9): (22.59, 34.21, 39.61, 20.72, 20.83, 20.31, 20.42),
}

TRAINING = tuple(_FID10K)
"""The intervals of training of Table 2, its lines."""

TABLE_2: dict[tuple[Cuts, Cuts], float] = {
  (training, generation): fid
  for training, line in _FID10K.items()
  for generation, fid in zip(GENERATION, line, strict=True)
}
"""Table 2: FID10K on FFHQ 64 x 64 by (training, generation), four bands of a blur basis."""

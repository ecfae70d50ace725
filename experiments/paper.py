"""The numbers of the paper that experiments set beside their own."""

TABLE_1 = {'bottom_top': 12.63, 'right_left': 13.14, 'cdm': 14.03, 'cdm_inv': 13.70}
"""Table 1: FID10K of the grouping strategies, k = 2 on CIFAR-10, Euler, 128 steps."""

TABLE_2_BEST = {'training': '0.6-0.8-0.9', 'generation': '0.1-0.2-0.3'}
"""Table 2: the intervals with the lowest FID10K on FFHQ 64 x 64, 17.41."""

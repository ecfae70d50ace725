"""Networks: DDPM++ for images and a small MLP for 2-D data. They know nothing of diffusion."""

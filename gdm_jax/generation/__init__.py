"""From seeds to data over all devices, edits of latents, and folders of samples."""

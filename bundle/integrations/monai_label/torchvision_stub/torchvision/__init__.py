"""Stands in for torchvision: MONAI Label imports two of its functions when it starts, for pictures of DeepEdit only."""

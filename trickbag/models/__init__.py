"""Networks: those of timm, and the small residual networks of He et al. 2016."""

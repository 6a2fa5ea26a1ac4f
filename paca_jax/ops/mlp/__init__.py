"""The depthwise MLP and its residual."""

"""A small server: predictions and explorers for uploaded pictures, over HTTP."""

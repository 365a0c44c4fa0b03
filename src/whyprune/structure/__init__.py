"""Structure: trace a network, remove coupled channels from it, and prove the result right."""

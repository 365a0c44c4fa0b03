"""Effects from runs in which many units are masked at once: context effects and Shapley values."""

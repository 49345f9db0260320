"""Draw how far a random walk gets: `sandbox run --policy datascience examples/plot.py`."""

import matplotlib.pyplot as plt
import numpy as np

steps = np.random.default_rng(1936).choice([-1, 1], size=(200, 1000))
walks = steps.cumsum(axis=1)
print("mean distance after 1000 steps:", np.abs(walks[:, -1]).mean())
plt.plot(walks[:20].T, linewidth=0.6)
plt.xlabel("step")
plt.ylabel("position")
plt.show()

# %% [markdown]
# # 1. What does a VAE change about an autoencoder, so that it can draw new digits?

# %%
from budget import figure, pick

import pyro_vae as pv

digits = pv.data.load("digits")
train = digits.train[: pick(smoke=256, default=None, full=None)]
print(train)

# %%
figure(pv.plots.image_grid(train.x[:20], title="Digits"), "01_digits")

# %% [markdown]
# ## Exercise
#
# ## References
#
# * Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

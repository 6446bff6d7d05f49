"""Minibatches: where the rows come from, their order, and the copy to the device."""

"""Known faults: programs on which estimators are neither exact nor refused by name, and why."""

#: The fault and the estimators that have it (all if None), by program.
FAULTS = {
    "the mean gradient through shared draws": {"biased for more than one particle": "DReG"},
    "penalties on plate of data at dim -3 and nothing in between": {"rows are those of dimension -1": "BetaTC"},
}


#: Valid programs that every estimator with an unbiased gradient of the ELBO refuses, and whether one should take them.
REFUSED_BY_ALL = {
    "a normal site marked for enumeration": "intended: the estimators of this library enumerate discrete sites alone",
    "scales that differ between model and guide": "intended: such a program has no bound",
    "scale tensors that differ between model and guide": "intended: such a program has no bound",
    "six nested plates": "intended: at most four are supported",
    "an empty model": "intended: there is nothing to estimate",
}


def fault(program, cls):
    """Return the known fault of an estimator on a program, None if there is none."""
    for reason, names in FAULTS.get(program, {}).items():
        if names is None or cls in names.split():
            return reason
    return None

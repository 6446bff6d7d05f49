"""Known faults: programs on which estimators are neither exact nor refused by name, and why."""

#: The fault and the estimators that have it (all if None), by program.
FAULTS = {
    "a guide that is reparameterized in part": {
        "biased": (
            "CIWAE CUBO DIP ELBO IWAE MIWAE MMD NVIL PIWAE VIMCO WAE BetaTC DReG Enumeration "
            "FactorVAE InfoVAE JackknifeIWAE ReinforceLOO Renyi StickingTheLanding"
        ),
    },
    "a class of probability zero, enumerated": {
        "wrong value": "CIWAE IWAE MIWAE JackknifeIWAE Renyi",
        "wrong gradient": "ELBO Enumeration",
    },
    "an enumerated site of the model alone": {
        "refused by an error that has no way out": (
            "CIWAE CUBO DIP ELBO IWAE MIWAE MMD NVIL PIWAE TVO VIMCO WAE BetaTC DReG Enumeration "
            "FactorVAE GDReG InfoVAE JackknifeIWAE ReinforceLOO Renyi ReweightedWakeSleep "
            "StickingTheLanding"
        ),
    },
    "an enumerated switch of the model alone": {
        "refused by an error that has no way out": (
            "CIWAE CUBO DIP ELBO IWAE MIWAE MMD NVIL PIWAE TVO VIMCO WAE BetaTC DReG Enumeration "
            "FactorVAE GDReG InfoVAE JackknifeIWAE ReinforceLOO Renyi ReweightedWakeSleep "
            "StickingTheLanding"
        ),
    },
    "an enumerated site of the model alone in a further plate": {
        "refused by an error that has no way out": (
            "CIWAE CUBO DIP ELBO IWAE MIWAE MMD NVIL PIWAE TVO VIMCO WAE BetaTC DReG Enumeration "
            "FactorVAE GDReG InfoVAE JackknifeIWAE ReinforceLOO Renyi ReweightedWakeSleep "
            "StickingTheLanding"
        ),
    },
    "a Markov chain of the model alone": {
        "refused by an error that has no way out": None,
    },
    "a normal site marked for enumeration": {
        "crashes by NotImplementedError": None,
    },
    "a mask that is False": {
        "crashes by RuntimeError": "GDReG",
    },
    "two separate plates of observations": {
        "accepted, although no bound": "CUBO",
    },
    "a subsampled plate and a shared latent": {
        "accepted, although no bound": "CUBO",
        "wrong gradient": "PIWAE GDReG",
    },
    "six nested plates": {
        "refused by an error that has no way out": (
            "CIWAE DIP IWAE MIWAE MMD NVIL VIMCO WAE FactorVAE InfoVAE ReinforceLOO Renyi "
            "ReweightedWakeSleep StickingTheLanding"
        ),
        "crashes by RuntimeError": "CUBO PIWAE TVO BetaTC DReG GDReG JackknifeIWAE",
    },
    "crossed plates of the same size": {
        "accepted, although no bound": "CUBO",
        "wrong gradient": "PIWAE",
    },
    "crossed plates of different sizes": {
        "accepted, although no bound": "CUBO",
        "wrong gradient": "PIWAE",
    },
    "a plate of weights as large as the data": {
        "accepted, although no bound": "CUBO",
        "crashes by RuntimeError": "GDReG",
    },
    "a plate of weights of another size": {
        "accepted, although no bound": "CUBO",
        "crashes by RuntimeError": "GDReG",
    },
    "a plate of weights and a latent per example": {
        "accepted, although no bound": "CUBO",
        "wrong gradient": "PIWAE",
    },
    "a shared latent alone": {
        "accepted, although no bound": "CUBO",
        "crashes by RuntimeError": "GDReG",
    },
    "a shared latent and one per example": {
        "accepted, although no bound": "CUBO",
        "wrong gradient": "PIWAE GDReG",
    },
    "a guide that depends on a shared latent": {
        "accepted, although no bound": "CUBO",
        "wrong gradient": "GDReG",
    },
    "a site that is not traced": {
        "refused by an error that has no way out": (
            "CIWAE CUBO DIP ELBO IWAE MIWAE MMD NVIL PIWAE TVO VIMCO WAE BetaTC DReG Enumeration "
            "FactorVAE GDReG InfoVAE JackknifeIWAE ReinforceLOO Renyi ReweightedWakeSleep "
            "StickingTheLanding"
        ),
    },
    "an auxiliary site that all data share": {
        "accepted, although no bound": "CUBO",
        "crashes by RuntimeError": "GDReG",
    },
    "a point estimate as guide": {
        "wrong gradient": "GDReG",
    },
    "data as keyword argument x": {
        "crashes by IndexError": "NVIL",
    },
    "no latent": {
        "crashes by RuntimeError": "GDReG",
    },
    "an empty model": {
        "crashes by IndexError": (
            "CIWAE CUBO IWAE MIWAE NVIL PIWAE TVO VIMCO DReG DisARM GDReG JackknifeIWAE ReinforceLOO "
            "Renyi ReweightedWakeSleep StickingTheLanding"
        ),
        "crashes by AttributeError": "ELBO Enumeration",
    },
    "no observation": {
        "crashes by AttributeError": "GDReG",
    },
    "three latents in the model, one in the guide": {
        "accepted, although model and guide do not fit each other": (
            "CIWAE CUBO DIP ELBO IWAE MIWAE NVIL PIWAE TVO VIMCO BetaTC DReG Enumeration FactorVAE "
            "GDReG JackknifeIWAE ReinforceLOO Renyi ReweightedWakeSleep StickingTheLanding"
        ),
        "crashes by RuntimeError": "MMD WAE InfoVAE",
    },
    "one latent in the model, three in the guide": {
        "accepted, although model and guide do not fit each other": (
            "CIWAE CUBO DIP ELBO IWAE MIWAE NVIL PIWAE TVO VIMCO BetaTC DReG Enumeration FactorVAE "
            "GDReG JackknifeIWAE ReinforceLOO Renyi ReweightedWakeSleep StickingTheLanding"
        ),
        "crashes by RuntimeError": "MMD WAE InfoVAE",
    },
    "a guide without the plate": {
        "accepted, although model and guide do not fit each other": (
            "CIWAE ELBO IWAE MIWAE NVIL TVO VIMCO Enumeration JackknifeIWAE ReinforceLOO Renyi "
            "ReweightedWakeSleep StickingTheLanding"
        ),
        "crashes by IndexError": "CUBO DIP MMD PIWAE WAE BetaTC DReG FactorVAE GDReG InfoVAE",
        "crashes by AttributeError": "DisARM",
    },
    "two sites of one name": {
        "refused by an error that names no argument": None,
    },
    "a latent of the model that the guide lacks": {
        "refused by an error that has no way out": (
            "CIWAE CUBO DIP ELBO IWAE MIWAE MMD NVIL PIWAE TVO VIMCO WAE BetaTC DReG Enumeration "
            "FactorVAE GDReG InfoVAE JackknifeIWAE ReinforceLOO Renyi ReweightedWakeSleep "
            "StickingTheLanding"
        ),
    },
    "a latent of the guide that the model lacks": {
        "refused by an error that has no way out": (
            "CIWAE CUBO DIP ELBO IWAE MIWAE MMD NVIL PIWAE TVO VIMCO WAE BetaTC DReG Enumeration "
            "FactorVAE GDReG InfoVAE JackknifeIWAE ReinforceLOO Renyi ReweightedWakeSleep "
            "StickingTheLanding"
        ),
    },
    "the mean gradient through shared draws": {
        "biased for more than one particle": "DReG GDReG PIWAE",
    },
    "one draw of a shared latent for all particles": {
        "num_particles does not average over it": "ELBO Enumeration",
    },
    "penalties on plate of data at dim -3 and nothing in between": {
        "rows are taken from the dimension -1": "BetaTC",
    },
    "plates that change between calls": {
        "crashes by ValueError of Pyro": None,
    },
}


#: Valid programs that every estimator with an unbiased gradient of the ELBO refuses, and whether one should take them.
REFUSED_BY_ALL = {
    "scales that differ between model and guide": "intended: such a program has no bound",
    "scale tensors that differ between model and guide": "intended: such a program has no bound",
    "a factor in the guide": "no estimator takes it yet",
    "an auxiliary site per example": "no estimator takes it yet",
    "a switch that all data share, enumerated": "no estimator takes it yet",
    "a switch that all data share, drawn": "no estimator takes it yet",
    "an enumerated switch and an enumerated latent per example": "no estimator takes it yet",
    "a drawn switch and a drawn latent per example": "no estimator takes it yet",
    "a binary latent in a plate inside of the data, enumerated": "no estimator takes it yet",
    "an enumerated site of the model alone": "no estimator takes it yet",
    "an enumerated switch of the model alone": "no estimator takes it yet",
    "an enumerated site of the model alone in a further plate": "no estimator takes it yet",
    "a Markov chain of the model alone": "no estimator takes it yet",
    "a class of probability zero, enumerated": "no estimator takes it yet",
    "a normal site marked for enumeration": "no estimator takes it yet",
    "a site that is not traced": "no estimator takes it yet",
    "an empty model": "no estimator takes it yet",
    "a guide that is reparameterized in part": "no estimator takes it yet",
}


def fault(program, cls):
    """Return the known fault of an estimator on a program, None if there is none."""
    for reason, names in FAULTS.get(program, {}).items():
        if names is None or cls in names.split():
            return reason
    return None

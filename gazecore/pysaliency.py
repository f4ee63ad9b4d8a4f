"""A model as pysaliency's: needs the extra `pysaliency`.

gazecore.pysaliency.Model(gazecore.load()).information_gain(stimuli, fixations)
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from gazecore.errors import InputError

if TYPE_CHECKING:
    from gazecore.predictor import Model as GazecoreModel

try:
    from pysaliency import Model as _Model
    from pysaliency import SaliencyMapModel as _SaliencyMapModel
    from pysaliency.datasets import as_stimulus
except ImportError as error:
    raise InputError("pysaliency is not installed: pip install 'gazecore[pysaliency]'") from error


for _old, _new in (("trapz", "trapezoid"), ("in1d", "isin")):
    if not hasattr(np, _old):  # NumPy 2.4 dropped them, pysaliency's AUC calls them (0.2.22)
        setattr(np, _old, getattr(np, _new))


class Model(_Model, _SaliencyMapModel):  # type: ignore[misc]
    """What `gazecore.load` gave, with all that a pysaliency model has (`log_density(stimulus)`,
    `log_likelihoods`, `information_gain`, ...) and a saliency map model (`AUC`, `NSS`, ...), whose
    map is the density.

    Stimuli are RGB or gray, uint8; gray ones are shown as they look.
    """

    def __init__(self, model: "GazecoreModel", **options: Any) -> None:
        """Args: model: from `gazecore.load`; options: as pysaliency's `Model` takes them."""
        super().__init__(**options)
        self.model = model

    def saliency_map(self, stimulus: Any) -> np.ndarray:
        """The density, (height, width), not logarithmic."""
        # Not kept: both parents keep what they made under the same name.
        return np.asarray(np.exp(self.log_density(stimulus)))

    def _saliency_map(self, stimulus: Any) -> np.ndarray:
        return np.asarray(np.exp(self._log_density(stimulus)))

    def _log_density(self, stimulus: Any) -> np.ndarray:
        pixels = np.asarray(as_stimulus(stimulus).stimulus_data)
        if pixels.ndim == 2:
            pixels = np.stack([pixels] * 3, axis=-1)
        return self.model.predict(pixels).log_density.astype(np.float64)

"""HDF5, which pysaliency keeps datasets and models in, where its library is installed."""

from types import ModuleType

from gazecore.errors import CorpusError


def import_h5py() -> ModuleType:
    """h5py, or a CorpusError that says how to install it."""
    try:
        import h5py
    except ImportError as error:
        raise CorpusError(
            "pysaliency's HDF5 files need h5py: pip install 'gazecore[pysaliency]'"
        ) from error
    module: ModuleType = h5py
    return module

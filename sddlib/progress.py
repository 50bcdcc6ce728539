"""How far a loop is, for who looks at it."""

from tqdm.auto import tqdm

from .parallel import rank


def progress(iterable, **options):
    """A tqdm bar that is quiet when there is no terminal or notebook page to look at it."""
    # An iterator of our own: tqdm.auto calls iter() once more on anything else, which starts a loader's workers twice and
    # draws from its generator, so that the order of batches would depend on the number of workers.
    disable = None if rank() == 0 else True
    return tqdm(iter(iterable), total=len(iterable), leave=False, disable=disable, mininterval=1.0, **options)

"""Standard errors of what an evaluation measures, over the images of its set."""

from torch import Tensor


def of_mean(hits: Tensor) -> float:
    """Standard error of the mean of independent values, (N,); NaN for fewer than two."""
    return (hits.double().std() / len(hits) ** 0.5).item() if len(hits) > 1 else float("nan")


def of_clusters(hits: Tensor, cluster: Tensor, clusters: int) -> float:
    """Standard error of the mean of values that come in clusters, such as the captions of one image.

    The linearised error of a ratio of sums (Cochran 1977, section 6): only clusters are taken as
    independent. With one value a cluster it is `of_mean`.

    Args:
        hits: Values, (M,).
        cluster: The cluster of each, (M,).
        clusters: How many there are.

    Returns:
        NaN for fewer than two clusters.
    """
    if clusters < 2:  # noqa: PLR2004 - a spread needs two
        return float("nan")
    values = hits.double().cpu()  # a GPU adds in no fixed order
    residuals = values.new_zeros(clusters).index_add(0, cluster.cpu(), values - values.mean())
    return (residuals.square().sum() * clusters / (clusters - 1)).sqrt().item() / len(values)


def of_crossed(hits: Tensor) -> float:
    """Standard error of the mean over draws of a training set and images that every draw is tested on.

    Draws and images both are a sample, and crossed: the variances of both means count, less that of what
    is neither's, which both contain (Cornfield and Tukey 1956).

    Args:
        hits: Values, (draws, images), at least two of each.
    """
    values = hits.double()
    draws, images = values.shape
    by_draw, by_image = values.mean(1, keepdim=True), values.mean(0, keepdim=True)
    rest = (values - by_draw - by_image + values.mean()).square().sum() / ((draws - 1) * (images - 1))
    variance = by_draw.var() / draws + by_image.var() / images - rest / (draws * images)
    return variance.clamp(min=0).sqrt().item()

"""Standard errors of evaluation metrics, over the images of a set."""

from torch import Tensor


def of_mean(hits: Tensor) -> float:
    """Standard error of the mean of independent values, (N,); NaN for fewer than two."""
    return (hits.double().std() / len(hits) ** 0.5).item() if len(hits) > 1 else float("nan")


def of_clusters(hits: Tensor, cluster: Tensor, clusters: int) -> float:
    """Standard error of the mean of values in clusters, such as the captions of one image.

    Linearised error of a ratio of sums (Cochran 1977, section 6), which assumes only the clusters to be
    independent: with residuals e_i summed per cluster c, SE² = C / (C - 1) · Σ_c (Σ_{i in c} e_i)² / M². With
    one value per cluster it equals `of_mean`. Each of the values, (M,), has the index of its cluster; NaN for
    fewer than two clusters.
    """
    if clusters < 2:  # noqa: PLR2004 - a spread needs two
        return float("nan")
    values = hits.double().cpu()  # index_add on a GPU sums in no fixed order
    residuals = values.new_zeros(clusters).index_add(0, cluster.cpu(), values - values.mean())
    return (residuals.square().sum() * clusters / (clusters - 1)).sqrt().item() / len(values)


def of_crossed(hits: Tensor) -> float:
    """Standard error of the mean over draws of a training set, all tested on the same images.

    Draws and images are crossed random factors: the variances of both means add up, minus that of the
    residual, which both contain (Cornfield and Tukey 1956). Values are (draws, images); NaN for fewer than
    two draws or images.
    """
    values = hits.double()
    if min(values.shape) < 2:  # noqa: PLR2004 - a spread needs two
        return float("nan")
    draws, images = values.shape
    by_draw, by_image = values.mean(1, keepdim=True), values.mean(0, keepdim=True)
    rest = (values - by_draw - by_image + values.mean()).square().sum() / ((draws - 1) * (images - 1))
    # Var(mean) = var_draw / D + var_image / I - var_rest / (D I), estimated from the marginal means.
    variance = by_draw.var() / draws + by_image.var() / images - rest / (draws * images)
    return variance.clamp(min=0).sqrt().item()

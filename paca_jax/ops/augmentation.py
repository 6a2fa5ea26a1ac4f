"""Augmentation of whole batches on the device: random erasing, mixup and cutmix.

Images are normalized float arrays (B, H, W, C). All randomness comes from one key and depends on the row alone, not on how the
batch is split over devices.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_ERASED_AREA = (0.02, 1 / 3)
_ERASED_RATIO = (0.3, 1 / 0.3)
_ATTEMPTS = 10


def random_erasing(key: Array, images: Float[Array, "B H W C"], probability: float) -> Float[Array, "B H W C"]:
    """Fills a random rectangle of some images with standard normal noise (Zhong et al., AAAI 2020; mode "pixel").

    The rectangle covers a uniformly random part, 0.02 to 1/3, of the area, at a height-to-width ratio that is log-uniform from
    0.3 to 1/0.3. If none of ten draws is smaller than the image along both sides, nothing is erased.

    Args:
        key: of all draws.
        images: normalized images.
        probability: with which an image loses a rectangle.
    """
    batch, height, width, _ = images.shape
    keys = jax.random.split(key, 5)
    draws = (batch, _ATTEMPTS)
    area = height * width * jax.random.uniform(keys[0], draws, minval=_ERASED_AREA[0], maxval=_ERASED_AREA[1])
    low, high = jnp.log(jnp.asarray(_ERASED_RATIO))
    ratio = jnp.exp(jax.random.uniform(keys[1], draws, minval=low, maxval=high))
    heights, widths = jnp.rint(jnp.sqrt(area * ratio)).astype(int), jnp.rint(jnp.sqrt(area / ratio)).astype(int)
    fits = (heights < height) & (widths < width)
    chosen = jnp.argmax(fits, axis=1)[:, None]
    erased_height, erased_width = (jnp.take_along_axis(x, chosen, 1)[:, 0] for x in (heights, widths))

    corner = jax.random.uniform(keys[2], (2, batch))
    top = jnp.floor(corner[0] * (height - erased_height + 1)).astype(int)
    left = jnp.floor(corner[1] * (width - erased_width + 1)).astype(int)
    erased = jnp.any(fits, axis=1) & jax.random.bernoulli(keys[3], probability, (batch,))
    inside = _inside((height, width), top, top + erased_height, left, left + erased_width) & erased[:, None, None]
    noise = jax.random.normal(keys[4], images.shape, images.dtype)
    return jnp.where(inside[..., None], noise, images)


def mix(
    key: Array,
    images: Float[Array, "B H W C"],
    targets: Float[Array, "B K"],
    valid: Float[Array, "B"],
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    switch_probability: float = 0.5,
    group: int | None = None,
) -> tuple[Float[Array, "B H W C"], Float[Array, "B K"]]:
    """Mixes every image and its target with those of a partner, by mixup or by cutmix.

    The rows of a group have one mixing weight `lam` and one of the two ways in common; a row's partner is the one at its place
    from the end of the group. Mixup (Zhang et al., ICLR 2018) takes lam of the image and 1 - lam of the partner, lam from
    Beta(a, a). Cutmix (Yun et al., ICCV 2019) pastes a rectangle of the partner that covers about 1 - lam of the image, clipped
    at its border; the targets are weighted by the area that the rectangle really covers.

    Args:
        key: of all draws.
        images: normalized images.
        targets: a distribution over the classes for each.
        valid: 0 for rows that do not count; they are nobody's partner.
        mixup_alpha: a of mixup; 0 for cutmix only.
        cutmix_alpha: a of cutmix; 0 for mixup only.
        switch_probability: with which a group is mixed by cutmix if both are on.
        group: rows in a group, a divisor of B; None for all of them.
    """
    batch, height, width, _ = images.shape
    group = group or batch
    groups = batch // group
    keys = jax.random.split(key, 4)
    cutmix_probability = switch_probability if mixup_alpha > 0 and cutmix_alpha > 0 else float(cutmix_alpha > 0)
    use_cutmix = jax.random.bernoulli(keys[0], cutmix_probability, (groups,))
    mixup_lam = _beta(keys[1], mixup_alpha, groups)
    box, cutmix_lam = _cutmix_box(keys[2], _beta(keys[3], cutmix_alpha, groups), (height, width))
    lam = jnp.where(use_cutmix, cutmix_lam, mixup_lam)

    def partner(x: Array) -> Array:
        return x.reshape(groups, group, *x.shape[1:])[:, ::-1].reshape(x.shape)

    def by_row(x: Array) -> Array:
        return jnp.repeat(x, group, axis=0, total_repeat_length=batch)

    partnered = partner(valid) > 0
    # The weight of each pixel of the row's own image: lam everywhere for mixup, 0 or 1 for cutmix.
    pixel_lam = jnp.where(use_cutmix[:, None, None], 1.0 - box, mixup_lam[:, None, None])
    pixel_lam = jnp.where(partnered[:, None, None], by_row(pixel_lam), 1.0)[..., None].astype(images.dtype)
    weights = jnp.where(partnered, by_row(lam), 1.0)[:, None]
    return images * pixel_lam + partner(images) * (1 - pixel_lam), targets * weights + partner(targets) * (1 - weights)


def _beta(key: Array, alpha: float, count: int) -> Float[Array, "G"]:
    """Draws from Beta(alpha, alpha); ones where alpha is 0."""
    return jax.random.beta(key, alpha, alpha, (count,)) if alpha > 0 else jnp.ones(count)


def _cutmix_box(key: Array, lam: Float[Array, "G"], size: tuple[int, int]) -> tuple[Bool[Array, "G H W"], Float[Array, "G"]]:
    """Returns each group's rectangle as a bitmap, and the fraction of the image outside it."""
    sides = jnp.asarray(size)[:, None]
    lengths = jnp.floor(sides * jnp.sqrt(1 - lam)).astype(int)
    centers = jnp.floor(jax.random.uniform(key, (2, lam.shape[0])) * sides).astype(int)
    (top, left), (bottom, right) = (jnp.clip(centers + sign * (lengths // 2), 0, sides) for sign in (-1, 1))
    outside = 1 - (bottom - top) * (right - left) / (size[0] * size[1])
    return _inside(size, top, bottom, left, right), outside


def _inside(
    size: tuple[int, int], top: Int[Array, "N"], bottom: Int[Array, "N"], left: Int[Array, "N"], right: Int[Array, "N"]
) -> Bool[Array, "N H W"]:
    rows, columns = jnp.arange(size[0]), jnp.arange(size[1])
    down = (rows >= top[:, None]) & (rows < bottom[:, None])
    across = (columns >= left[:, None]) & (columns < right[:, None])
    return down[:, :, None] & across[:, None, :]

"""The answers of a model without one of its clusters, computed for every cluster of an assignment."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from paca_jax.explain.checks import AnyModel
from paca_jax.explain.inspection.rows import Answer, later_answer, outputs
from paca_jax.models import PaCaViT, Removal


def answers_without_each(
    model: AnyModel, variables: dict[str, PyTree], images: Float[Array, "1 H W C"], first: Answer
) -> dict[str, list[Answer]]:
    """Returns, for each assignment of the backbone, the answers for an image without each of its clusters, in order.

    A removed cluster is masked in all blocks that use the assignment; see `paca_jax.models.Removal`. Those of a PaCa head are
    the classes, and are not removed.

    Args:
        model: the model.
        variables: the variables of the model.
        images: the normalized image.
        first: the answer with all clusters, whose rows the others have.

    Raises:
        UserError: if an output is not finite.
    """
    config = model.config if isinstance(model, PaCaViT) else model.config.backbone
    counts = config.assignments
    # Every call has a removal for every assignment, which are mostly empty, so that one program serves for all.
    nothing = {owner: Removal(jnp.ones(count, bool)) for owner, count in counts.items()}

    def without(owner: str, cluster: int) -> Answer:
        removals = nothing | {owner: Removal(jnp.arange(counts[owner]) != cluster)}
        return later_answer(first, outputs(model, variables, images, removals))

    return {owner: [without(owner, cluster) for cluster in range(count)] for owner, count in counts.items()}

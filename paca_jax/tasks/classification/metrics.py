"""The evaluation metrics of classifiers."""

import flax.struct
from clu import metrics


@flax.struct.dataclass
class EvalMetrics(metrics.Collection):
    """Loss (cross-entropy without label smoothing) and top-1 accuracy over the valid images."""

    loss: metrics.Average.from_output("loss")  # type: ignore[valid-type]
    accuracy: metrics.Average.from_output("correct")  # type: ignore[valid-type]

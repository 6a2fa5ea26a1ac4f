from tests.prepared import prepare_once

__all__ = ["prepare_once"]

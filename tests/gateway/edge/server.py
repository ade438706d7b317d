"""The gateway as a process of its own, over the fake engine: `python -m tests.gateway.edge.server`.

The environment variable FAKE_ENGINE_DELAY_S says how long the engine takes for an answer.
"""

import os
from functools import partial
from unittest.mock import patch

from gateway import __main__ as gateway
from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.fake_engine import FakeEngine

if __name__ == "__main__":
    engine = FakeEngine(delay_s=float(os.environ.get("FAKE_ENGINE_DELAY_S", "0")))
    with patch.object(gateway, "create_app", partial(create_app, engine=engine)):
        gateway.serve(Settings())

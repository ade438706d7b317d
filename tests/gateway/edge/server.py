"""The gateway as a process of its own, over the fake engine: `python -m tests.gateway.edge.server`."""

from functools import partial
from unittest.mock import patch

from gateway import __main__ as gateway
from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.fake_engine import FakeEngine

if __name__ == "__main__":
    with patch.object(gateway, "create_app", partial(create_app, engine=FakeEngine())):
        gateway.serve(Settings())

"""api.weixin.qq.com of the simulated platform over HTTP on loopback, and beside it what pages inside WeChat and demonstrations need."""
from __future__ import annotations

from collections.abc import Callable

from tests.loopback import Answer, LoopbackServer, Request, json_answer
from tests.wechat_sim.api import Api

Pages = Callable[[Request], "Answer | None"]  # None when there is no such page
_API = ("/cgi-bin/", "/sns/", "/video/")


class SimulatorServer(LoopbackServer):
    def __init__(self, api: Api, *pages: Pages, port: int = 0) -> None:
        super().__init__(self._route, port=port)
        self._api, self._pages = api, pages

    def _route(self, request: Request) -> Answer:
        if request.path.startswith(_API):
            token = request.query.get("access_token", "")
            if request.method == "POST":
                return json_answer(self._api.post(request.path, token, request.body))
            return self._api.get(request.path, token, request.query, request.host)
        found = (pages(request) for pages in self._pages)
        return next((answer for answer in found if answer is not None), Answer("text/plain", b"", 404))

"""One JSON object a line: what a server did, for programs that collect logs."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any

from starlette.requests import Request

from engines.serve.refusals import Refusal

_LOG = logging.getLogger("engines.serve")
#: What every record of Python's has; the rest was given by whoever logged.
_USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time in UTC, level, message, and whatever was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told: dict[str, Any] = {"time": f"{when}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        told |= {"message": record.getMessage()} | {key: value for key, value in vars(record).items() if key not in _USUAL}
        if record.exc_info and record.exc_info[1]:
            told["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(told, ensure_ascii=False, default=str)


def to_stderr() -> None:
    """Have everything that is logged, uvicorn's lines too, go to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def failed(request: Request, refusal: Refusal, error: BaseException) -> None:
    """Log why a request got no picture: a line for what its sender can mend, the traceback of a bug."""
    told = {"event": "refused", "request": request.state.request_id, "status": refusal.status, "code": refusal.code}
    bug = refusal.code == "internal_error"
    _LOG.log(logging.ERROR if bug else logging.INFO, refusal.text, extra=told, exc_info=error if bug else None)


def answered(told: dict[str, Any]) -> None:
    """Log a request that has its answer, or that nobody waits for any more."""
    _LOG.info("%s %s %s", told["method"], told["path"], told["status"], extra={"event": "request", **told})

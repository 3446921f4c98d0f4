"""What a `MockTransport` answers: the script of a test, and answers as a server sends them.

A test gives answers as its program sees them: values, not base64 of JSON text, and only what matters to it. What else
a server always says is filled in here, and what travels as base64 is put into it (PROTOCOL.md section 4).
"""

from __future__ import annotations

import os
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from dwp_core import ids
from dwp_core.codec.payload import encode_payload
from dwp_core.errors import UNKNOWN_METHOD, DispatchError, InvalidRequest
from dwp_core.frames import ANSWER_LIMITS
from dwp_core.ids import IdSource
from dwp_core.methods import METHODS

Answer = Any
"""A JSON value, an error, or a function of the request's data that gives or raises one of these."""

SUBSCRIBING = frozenset(("subscribe", "unsubscribe"))
"""Answered by the session itself; a test can only have them refused."""

new_id = IdSource(random_bytes=os.urandom, now_ns=time.time_ns).new


class Script:
    """Which answers each method gets, in which order."""

    def __init__(self) -> None:
        self._answers: dict[str, list[Answer]] = {}

    def set(self, method: str, answers: tuple[Answer, ...]) -> None:
        """From now on these, one after the other; the last one stays.

        Raises:
            InvalidRequest: there is no such method, or one of the answers can be none.
        """
        check_method(method)
        for answer in answers:
            _check_answer(method, answer)
        self._answers[method] = list(answers) or [{}]

    def next(self, method: str, data: dict[str, Any]) -> Any:
        """The answer to a request of that method with this data.

        Raises:
            DispatchError: what the request is refused with: the scripted error, or that nothing was scripted.
        """
        answers = self._answers.get(method)
        if answers is None:
            if method in SUBSCRIBING:
                return {}
            raise _unscripted(method, self._answers)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer = _called(answer, method, data)
        if isinstance(answer, DispatchError):
            raise answer
        return answer


def check_method(method: str) -> None:
    """Refuse what is no method.

    Raises:
        InvalidRequest: that is the case; the message says which ones look like it.
    """
    if method not in METHODS:
        close = get_close_matches(str(method), METHODS, n=1)
        hint = f'; did you mean "{close[0]}"?' if close else f"; there are {', '.join(METHODS)}"
        raise InvalidRequest(f"the protocol has no method {method!r:.80}{hint}")


def encode_answer(method: str, value: Any, data: Mapping[str, Any]) -> bytes:
    """The JSON text of an answer as a server sends it: whole, and with base64 where it has that.

    Args:
        method: what was asked.
        value: the answer as a program sees it.
        data: the data of the request.

    Raises:
        PayloadError: it is no JSON value.
    """
    if isinstance(value, Mapping):
        usual = _USUAL.get(method)
        value = {**(usual(data) if usual is not None else {}), **value}
    fields = _SEALED.get(method)
    if fields is not None:
        value = _sealed(value, *fields)
    listed = _LISTED.get(method)
    if listed is not None and isinstance(value, dict) and isinstance(value.get(listed[0]), list):
        name, *inner = listed
        value = {**value, name: [_sealed(each, *inner) for each in value[name]]}
    if method == "workflow.timeline" and isinstance(value, list):
        value = [_sealed(each, "data", "input") for each in value]
    return encode_payload(value, what=f"the answer to {method}", limits=ANSWER_LIMITS)


_SEALED = {
    "job.get": ("payload", "output"),
    "job.wait": ("output",),
    "workflow.start": ("input", "output"),
    "workflow.get": ("input", "output"),
    "workflow.wait": ("output",),
}
"""Fields that travel as base64 of bytes, which are JSON text as a rule."""

_LISTED = {
    "job.list": ("jobs", "payload", "output"),
    "dlq.list": ("entries", "payload"),
    "cron.list": ("crons", "payload"),
}
"""A list, and such fields of its entries."""

_USUAL: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "job.enqueue": lambda data: _enqueued(data),
    "job.enqueue_many": lambda data: {"jobs": [_enqueued(job) for job in data["jobs"]]},
    "job.get": lambda data: {"id": data["job_id"]},
    "job.cancel": lambda data: {"status": "cancelled"},
    "job.list": lambda data: {"jobs": []},
    "job.wait": lambda data: {"job_id": data["job_id"], "state": "completed"},
    "workflow.start": lambda data: {"run_id": new_id(ids.RUN), "name": data["name"], "state": "running"},
    "workflow.get": lambda data: {"id": data["run_id"]},
    "workflow.cancel": lambda data: {"status": "cancelled"},
    "workflow.wait": lambda data: {"run_id": data["run_id"], "state": "completed"},
    "workflow.event": lambda data: {"event_id": new_id(ids.EVENT), "name": data["name"]},
    "cron.list": lambda data: {"crons": []},
    "cron.pause": lambda data: {"name": data["name"], "enabled": False},
    "cron.resume": lambda data: {"name": data["name"], "enabled": True},
    "cron.trigger": lambda data: {"name": data["name"], "job_id": new_id(ids.JOB)},
    "dlq.list": lambda data: {"entries": []},
    "dlq.replay": lambda data: {"job_id": new_id(ids.JOB)},
}
"""What our server always answers, as far as it follows from the request."""


def _enqueued(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"job_id": new_id(ids.JOB), "queue": data.get("queue") or "default", "state": "pending"}


def _sealed(value: Any, *names: str) -> Any:
    """The mapping with these fields in base64."""
    if not isinstance(value, Mapping):
        return value
    sealed = dict(value)
    for name in names:
        if name in sealed:
            inner = sealed[name]
            text = (
                inner if isinstance(inner, bytes) else encode_payload(inner, what=name, limits=ANSWER_LIMITS)
            )
            sealed[name] = b64encode(text).decode()
    return sealed


def _check_answer(method: str, answer: Answer) -> None:
    if isinstance(answer, DispatchError) or (callable(answer) and not isinstance(answer, type)):
        return
    if isinstance(answer, BaseException | type):
        raise InvalidRequest(
            f"answer: {method} can be answered with a JSON value, a function, or a DispatchError such as"
            f' NotFoundError("..."), not {answer!r:.80}'
        )
    if method in SUBSCRIBING and answer != {}:
        raise InvalidRequest(
            f"answer: {method} is answered by the transport itself; give an error to have it refused"
        )
    encode_answer(method, answer, _SAMPLE)


_SAMPLE = {"job_id": "", "run_id": "", "name": "", "jobs": ()}
"""What a request may hold of which the usual answers tell."""


def _called(answer: Callable[[dict[str, Any]], Any], method: str, data: dict[str, Any]) -> Any:
    try:
        return answer(data)
    except DispatchError:
        raise
    except Exception as error:
        raise DispatchError(
            f"the answer that was scripted for {method} raised {type(error).__name__}: {error}"
        ) from error


def _unscripted(method: str, scripted: Mapping[str, Any]) -> DispatchError:
    others = f"; there are answers for {', '.join(scripted)}" if scripted else ""
    return DispatchError(
        f'no answer was scripted for {method}: give one with transport.answer("{method}", ...){others}',
        code=UNKNOWN_METHOD,
    )

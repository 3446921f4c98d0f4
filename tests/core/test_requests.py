from __future__ import annotations

from dwp_core.requests import Purpose, Request, RequestTable, Retry


def request(id: str, retry: Retry = Retry.NEVER, *, expires: float | None = None, key: str = "") -> Request:
    return Request(id, "m", b"", tag=id, retry=retry, expires=expires, key=key)


def tags(requests: list[Request]) -> list[object]:
    return [each.tag for each in requests]


def test_a_request_waits_then_flies_then_is_answered_once() -> None:
    table = RequestTable()
    asked = request("c1", expires=5.0)
    table.wait(asked)
    assert (list(table.waiting), list(table.flying), len(table), table.next_deadline) == (["c1"], [], 1, 5.0)
    table.sent(asked)
    assert (list(table.waiting), list(table.flying), len(table)) == ([], ["c1"], 1)
    assert table.answered("c1") is asked
    assert table.answered("c1") is None
    assert (len(table), table.next_deadline) == (0, None)


def test_only_what_flies_can_be_answered() -> None:
    table = RequestTable()
    table.wait(request("c1"))
    assert table.answered("c1") is None
    assert table.answered("") is None
    assert len(table) == 1


def test_a_parked_request_is_kept_out_of_the_way_until_it_may_be_sent() -> None:
    table = RequestTable()
    table.park(request("c1", expires=3.0))
    assert (len(table), list(table.waiting), table.next_deadline) == (1, [], 3.0)
    table.unpark("c1")
    table.unpark("gone")
    assert list(table.waiting) == ["c1"]


def test_a_request_can_be_dropped_wherever_it_is() -> None:
    table = RequestTable()
    table.wait(request("waiting", expires=1.0))
    table.fly(request("flying", expires=1.0))
    table.park(request("parked", expires=1.0))
    assert tags([r for r in map(table.drop, ("flying", "waiting", "parked")) if r]) == [
        "flying",
        "waiting",
        "parked",
    ]
    assert table.drop("flying") is None
    assert table.next_deadline is None


def test_time_runs_out_for_one_after_the_other_and_it_is_known_whether_it_was_asked() -> None:
    table = RequestTable()
    table.fly(request("flying", expires=2.0))
    table.fly(request("patient"))
    table.wait(request("waiting", expires=1.0))
    table.park(request("parked", expires=3.0))
    assert table.take_expired(0.5) == []
    assert [(r.tag, asked) for r, asked in table.take_expired(2.5)] == [("flying", True), ("waiting", False)]
    assert table.next_deadline == 3.0
    assert [(r.tag, asked) for r, asked in table.take_expired(9.0)] == [("parked", True)]
    assert table.take_expired(9.0) == []
    assert len(table) == 1


def test_answers_leave_the_deadline_and_the_next_look_corrects_it() -> None:
    table = RequestTable()
    table.fly(request("first", expires=1.0))
    table.fly(request("second", expires=5.0))
    table.fly(request("third", expires=6.0))
    table.answered("first")
    assert table.next_deadline == 1.0
    assert table.take_expired(1.0) == []
    assert table.next_deadline == 5.0
    table.answered("second")
    table.answered("third")
    assert table.next_deadline is None


def test_what_may_be_sent_again_survives_a_lost_connection_in_order() -> None:
    table = RequestTable()
    table.fly(request("read", Retry.READ))
    table.fly(request("write", Retry.NEVER, expires=9.0))
    table.fly(request("unsent", Retry.NEVER))
    table.fly(request("keyed", Retry.IDEMPOTENT, key="k"))
    table.fly(request("keyless", Retry.IDEMPOTENT))
    table.park(request("parked", Retry.READ))
    table.wait(request("waiting"))
    unknown = table.land(frozenset(("unsent",)), keys_honoured=True)
    assert tags(unknown) == ["write", "keyless"]
    assert list(table.waiting) == ["read", "unsent", "keyed", "parked", "waiting"]
    assert [r.id for r in table.waiting.values() if r.doubtful] == ["read", "keyed"]
    assert (table.next_deadline, len(table.flying)) == (None, 0)


def test_a_key_is_worth_nothing_where_it_is_not_honoured() -> None:
    table = RequestTable()
    table.fly(request("keyed", Retry.IDEMPOTENT, key="k"))
    assert tags(table.land(frozenset(), keys_honoured=False)) == ["keyed"]


def test_everything_can_be_taken_out_at_the_end() -> None:
    table = RequestTable()
    table.wait(request("waiting", expires=1.0))
    table.fly(request("flying", expires=1.0))
    table.park(request("parked", expires=1.0))
    assert tags(table.clear()) == ["flying", "parked", "waiting"]
    assert (len(table), table.next_deadline) == (0, None)


def test_the_session_knows_its_own_questions() -> None:
    own = {purpose for purpose in Purpose if Request("c1", "m", b"", None, purpose=purpose).is_own}
    assert own == {Purpose.SUBSCRIBE, Purpose.UNSUBSCRIBE}

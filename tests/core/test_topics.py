from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dwp_core.errors import InvalidRequest
from dwp_core.topics import channels_of, check_channel, state_of

RECORDINGS = Path(__file__).parents[1] / "vectors" / "conversations" / "json"


@pytest.mark.parametrize(
    "channel", ["jobs", "workflows", "firehose", "job:job_1", "workflow:wfrun_1", "queue:mail"]
)
def test_a_channel_of_the_protocol_can_be_subscribed_to(channel: str) -> None:
    assert check_channel(channel) == channel


@pytest.mark.parametrize(
    "wrong", ["", "job", "jobs2", "job:", "queue:", "Jobs", "cron", None, 5, ["jobs"], "job:" + "x" * 600]
)
def test_any_other_is_refused_and_the_message_lists_what_would_be_right(wrong: Any) -> None:
    with pytest.raises(
        InvalidRequest, match=re.escape("expected jobs, workflows, firehose, job:<id>")
    ) as refused:
        check_channel(wrong)
    assert len(str(refused.value)) < 300


def test_the_longest_channel_is_configuration() -> None:
    assert check_channel("job:abcd", limit=8)
    with pytest.raises(InvalidRequest, match="at most 7 characters"):
        check_channel("job:abcd", limit=7)


@pytest.mark.parametrize(
    ("kind", "topic", "queue", "channels"),
    [
        ("job.failed", "job:j", "mail", ("firehose", "jobs", "job:j", "queue:mail")),
        ("job.failed", "job:j", "", ("firehose", "jobs", "job:j")),
        ("job.failed", "", "", ("firehose", "jobs")),
        ("workflow.started", "workflow:w", "", ("firehose", "workflows", "workflow:w")),
        ("workflow.started", "", "", ("firehose", "workflows")),
        ("cron.fired", "", "", ("firehose",)),
        ("custom", "custom:1", "", ("firehose", "custom:1")),
    ],
)
def test_an_event_is_on_the_firehose_its_group_its_own_topic_and_its_queue(
    kind: str, topic: str, queue: str, channels: tuple[str, ...]
) -> None:
    assert channels_of(kind, topic, queue) == channels


def test_every_recorded_event_tells_of_a_state_but_those_of_cron() -> None:
    kinds = set()
    for file in RECORDINGS.glob("*.jsonl"):
        for line in file.read_text().splitlines()[1:]:
            record = json.loads(line)
            if record["dir"] == "server" and '"type":"event"' in record.get("text", ""):
                kinds.add(json.loads(record["text"])["data"]["type"])
    assert {kind for kind in kinds if state_of(kind) is None} == {"cron.fired"}
    assert state_of("job.dlq") == "failed"

"""Raw msgspec: a frame as a struct, encoded and decoded with nothing checked around it."""

from __future__ import annotations

from datetime import datetime

import msgspec


class RawError(msgspec.Struct, omit_defaults=True, gc=False):
    code: int = 0
    message: str = ""
    details: str = ""


class RawFrame(msgspec.Struct, omit_defaults=True, gc=False):
    id: str
    type: str
    method: str = ""
    correl_id: str = ""
    token: str = ""
    app_id: str = ""
    org_id: str = ""
    data: msgspec.Raw = msgspec.Raw()
    error: RawError | None = None
    channel: str = ""
    credits: int = 0
    ts: datetime | None = None


encode = msgspec.json.Encoder().encode
decode_payload = msgspec.json.Decoder().decode

"""How each API says a reply of the scripted upstream: whole, and as the frames of a stream."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from freehold.upstream.spoken import CREATED, Called, Said, Step

DONE = b"data: [DONE]\n\n"


class Speaker(Protocol):
    """One reply in one API's words."""

    steps: Sequence[Step]
    """What a stream says, one frame or a few each."""

    def whole(self) -> dict[str, Any]: ...
    def head(self) -> bytes: ...
    def step(self, number: int) -> bytes: ...
    def tail(self) -> bytes: ...
    def done(self) -> bytes:
        """The API's own end marker, which a script can leave out."""
        ...


def frame(value: Any, name: str | None = None) -> bytes:
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + data + b"\n\n"


def _put(body: dict[str, Any], usage: Any) -> dict[str, Any]:
    return body if usage == "missing" else {**body, "usage": usage}


class ChatSpeaker:
    """OpenAI's chat completions."""

    def __init__(self, said: Said, *, choices: int, include_usage: bool, logprobs: bool) -> None:
        self.steps = said.steps
        self._said = said
        self._choices = choices
        self._include_usage = include_usage
        self._logprobs = logprobs

    def whole(self) -> dict[str, Any]:
        said = self._said
        calls = [_call(called, arguments) for called, arguments in said.calls()]
        message: dict[str, Any] = {"role": "assistant", "content": None if calls else said.joined("text")}
        message["refusal"] = None
        if said.thoughts():
            message["reasoning_content"] = said.joined("thought")
        if calls:
            message["tool_calls"] = calls
        message |= said.extra
        texts = [step.text for step in said.steps if step.kind == "text"]
        choices = [
            {"index": n, "message": message, "logprobs": self._probable(texts), "finish_reason": said.finish}
            for n in range(self._choices)
        ]
        return _put({**self._head("chat.completion"), "choices": choices}, said.usage(self._choices))

    def head(self) -> bytes:
        return self._delta({"role": "assistant", "content": ""})

    def step(self, number: int) -> bytes:
        step = self.steps[number]
        if step.kind == "text":
            return self._delta({"content": step.text}, logprobs=self._probable([step.text]))
        if step.kind == "thought":
            return self._delta({"reasoning_content": step.text})
        if step.kind == "refusal":
            return self._delta({"refusal": step.text})
        call: dict[str, Any] = {"index": step.call, "function": {"arguments": step.text}}
        if step.begins is not None:
            call |= {"id": step.begins.id, "type": "function"}
            call["function"]["name"] = step.begins.name
        return self._delta({"tool_calls": [call]})

    def tail(self) -> bytes:
        said = self._said
        found = self._delta(dict(said.extra)) if said.extra else b""
        found += self._delta({}, finish=said.finish)
        if self._include_usage and said.reported != "missing":
            head = self._head("chat.completion.chunk")
            found += frame({**head, "choices": [], "usage": said.usage(self._choices)})
        return found

    def done(self) -> bytes:
        return DONE

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._said.id, "object": kind, "created": CREATED, "model": self._said.model}

    def _delta(self, delta: dict[str, Any], *, finish: str | None = None, logprobs: Any = None) -> bytes:
        head = self._head("chat.completion.chunk")
        choices = (
            {"index": n, "delta": delta, "logprobs": logprobs, "finish_reason": finish} for n in range(self._choices)
        )
        return b"".join(frame({**head, "choices": [choice]}) for choice in choices)

    def _probable(self, texts: Sequence[str]) -> Any:
        if not self._logprobs:
            return None
        content = [{"token": text, "logprob": -0.5, "bytes": list(text.encode()), "top_logprobs": []} for text in texts]
        return {"content": content, "refusal": None}


def _call(called: Called, arguments: str) -> dict[str, Any]:
    return {"id": called.id, "type": "function", "function": {"name": called.name, "arguments": arguments}}


class CompletionsSpeaker:
    """OpenAI's completions: a text for each choice of each prompt."""

    def __init__(
        self, said: Sequence[Said], *, choices: int, drawn: int, echo: bool, prompts: Sequence[str], logprobs: bool,
        include_usage: bool,
    ) -> None:  # fmt: skip
        """`drawn` are made of each prompt, and `choices` of them are shown."""
        self._texts = [
            (prompts[n] if echo else "", [step.text for step in one.steps if step.kind == "text"], one.finish)
            for n, one in enumerate(said)
            for _ in range(choices)
        ]
        self._said = said
        self._drawn = drawn
        self._logprobs = logprobs
        self._include_usage = include_usage
        self.steps: Sequence[Step] = [
            Step("text", text, index)
            for index, (before, texts, _) in enumerate(self._texts)
            for text in ([before] if before else []) + texts
        ]

    def whole(self) -> dict[str, Any]:
        choices = [
            _choice(index, before + "".join(texts), self._probable(texts), finish)
            for index, (before, texts, finish) in enumerate(self._texts)
        ]
        return _put({**self._head(), "choices": choices}, self._usage())

    def head(self) -> bytes:
        return b""

    def step(self, number: int) -> bytes:
        step = self.steps[number]
        return frame({**self._head(), "choices": [_choice(step.call, step.text, self._probable([step.text]), None)]})

    def tail(self) -> bytes:
        found = b"".join(
            frame({**self._head(), "choices": [_choice(index, "", None, finish)]})
            for index, (_, _, finish) in enumerate(self._texts)
        )
        if self._include_usage and self._said[0].reported != "missing":
            found += frame({**self._head(), "choices": [], "usage": self._usage()})
        return found

    def done(self) -> bytes:
        return DONE

    def _usage(self) -> Any:
        if self._said[0].reported != "reported":
            return self._said[0].reported
        prompt = sum(one.prompt_tokens for one in self._said)
        output = sum(one.completion_tokens for one in self._said) * self._drawn
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}

    def _head(self) -> dict[str, Any]:
        first = self._said[0]
        return {
            "id": first.id.replace("chatcmpl-", "cmpl-"), "object": "text_completion", "created": CREATED,
            "model": first.model,
        }  # fmt: skip

    def _probable(self, texts: Sequence[str]) -> Any:
        if not self._logprobs:
            return None
        offsets = [sum(map(len, texts[:n])) for n in range(len(texts))]
        probable = [-0.5 for _ in texts]
        return {
            "tokens": list(texts), "token_logprobs": probable, "top_logprobs": [{} for _ in texts],
            "text_offset": offsets,
        }  # fmt: skip


def _choice(index: int, text: str, logprobs: Any, finish: str | None) -> dict[str, Any]:
    finish = finish if finish in (None, "stop", "length", "content_filter") else "stop"
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


class ResponsesSpeaker:
    """OpenAI's responses."""

    def __init__(self, said: Said, request: Mapping[str, Any]) -> None:
        self.steps = said.steps
        self._said = said
        self._request = request
        self._number = -1
        self._items: list[dict[str, Any]] = []
        self._id = said.id.removeprefix("chatcmpl-")

    def whole(self) -> dict[str, Any]:
        for number in range(len(self.steps)):
            self.step(number)
        self._end()
        return self._response("completed")

    def head(self) -> bytes:
        begun = self._response("in_progress")
        return self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)

    def step(self, number: int) -> bytes:
        step = self.steps[number]
        found = b"".join(self._open(step))
        item = self._items[-1]
        at = {"item_id": item["id"], "output_index": len(self._items) - 1}
        if step.kind == "call":
            item["arguments"] += step.text
            return found + self._event("response.function_call_arguments.delta", **at, delta=step.text)
        if step.kind == "thought":
            item["summary"][0]["text"] += step.text
            return found + self._event("response.reasoning_summary_text.delta", **at, summary_index=0, delta=step.text)
        part = item["content"][-1]
        at["content_index"] = len(item["content"]) - 1
        if step.kind == "refusal":
            part["refusal"] += step.text
            return found + self._event("response.refusal.delta", **at, delta=step.text)
        part["text"] += step.text
        return found + self._event("response.output_text.delta", **at, delta=step.text, logprobs=[])

    def tail(self) -> bytes:
        ended = b"".join(self._end())
        cut = self._said.finish in ("length", "content_filter")
        last = self._response("incomplete" if cut else "completed")
        return ended + self._event(f"response.{last['status']}", response=last)

    def done(self) -> bytes:
        return b""  # its last event is its end

    def _event(self, name: str, /, **fields: Any) -> bytes:
        self._number += 1
        return frame({"type": name, "sequence_number": self._number, **fields}, name)

    def _open(self, step: Step) -> Iterator[bytes]:
        """Begin the item and the part that a step belongs to."""
        kind = {"call": "function_call", "thought": "reasoning"}.get(step.kind, "message")
        last = self._items[-1] if self._items else None
        if last is None or last["type"] != kind or step.begins is not None:
            yield from self._end()
            yield self._begin(kind, step.begins)
        item = self._items[-1]
        at = {"item_id": item["id"], "output_index": len(self._items) - 1}
        if kind == "reasoning" and not item["summary"]:
            part = {"type": "summary_text", "text": ""}
            yield self._event("response.reasoning_summary_part.added", **at, summary_index=0, part=dict(part))
            item["summary"].append(part)
        wanted = "refusal" if step.kind == "refusal" else "output_text"
        if kind == "message" and (not item["content"] or item["content"][-1]["type"] != wanted):
            new: dict[str, Any] = {"type": wanted, "refusal": ""} if wanted == "refusal" else {
                "type": wanted, "text": "", "annotations": [], "logprobs": []}  # fmt: skip
            place = len(item["content"])
            yield self._event("response.content_part.added", **at, content_index=place, part=dict(new))
            item["content"].append(new)

    def _begin(self, kind: str, begins: Called | None) -> bytes:
        index = len(self._items)
        item: dict[str, Any] = {"type": kind, "id": f"{kind[:3]}_{self._id}{index}", "status": "in_progress"}
        if kind == "message":
            item |= {"role": "assistant", "content": []}
        elif kind == "reasoning":
            item |= {"summary": []}
            del item["status"]
        elif begins is not None:
            item |= {"call_id": begins.id, "name": begins.name, "arguments": ""}
        self._items.append(item)
        return self._event("response.output_item.added", output_index=index, item=json.loads(json.dumps(item)))

    def _end(self) -> list[bytes]:
        if not self._items:
            return []
        item = self._items[-1]
        at = {"item_id": item["id"], "output_index": len(self._items) - 1}
        found: list[bytes] = []
        if item["type"] == "function_call":
            found.append(
                self._event(
                    "response.function_call_arguments.done", **at, name=item["name"], arguments=item["arguments"]
                )
            )
        elif item["type"] == "reasoning":
            part = item["summary"][0]
            found.append(self._event("response.reasoning_summary_text.done", **at, summary_index=0, text=part["text"]))
            found.append(self._event("response.reasoning_summary_part.done", **at, summary_index=0, part=part))
        else:
            for place, part in enumerate(item["content"]):
                name, told = ("refusal", part) if part["type"] == "refusal" else ("output_text", part)
                fields = {"refusal": told["refusal"]} if name == "refusal" else {"text": told["text"], "logprobs": []}
                found.append(self._event(f"response.{name}.done", **at, content_index=place, **fields))
                found.append(self._event("response.content_part.done", **at, content_index=place, part=part))
        if "status" in item:
            item["status"] = "incomplete" if self._said.finish == "length" else "completed"
        found.append(self._event("response.output_item.done", output_index=len(self._items) - 1, item=item))
        return found

    def _response(self, status: str) -> dict[str, Any]:
        request, ended = self._request, status != "in_progress"
        if status == "completed" and self._said.finish in ("length", "content_filter"):
            status = "incomplete"
        reason = "content_filter" if self._said.finish == "content_filter" else "max_output_tokens"
        reasoning = request.get("reasoning") or {}
        tools = [
            {"description": None, "parameters": None, "strict": None, **tool}
            if tool.get("type") == "function"
            else tool
            for tool in request.get("tools") or ()
        ]
        usage = self._usage() if ended else None
        body = {
            "id": f"resp_{self._id}", "object": "response", "created_at": CREATED,
            "completed_at": CREATED if status == "completed" else None, "status": status, "background": False,
            "error": None, "incomplete_details": {"reason": reason} if status == "incomplete" else None,
            "instructions": request.get("instructions"), "max_output_tokens": request.get("max_output_tokens"),
            "max_tool_calls": None, "model": self._said.model, "output": self._items if ended else [],
            "parallel_tool_calls": True, "previous_response_id": None, "prompt_cache_key": None,
            "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
            "safety_identifier": None, "service_tier": "default", "store": bool(request.get("store", True)),
            "temperature": request.get("temperature", 1.0), "text": request.get("text") or {"format": {"type": "text"}},
            "tool_choice": request.get("tool_choice", "auto"), "tools": tools, "top_logprobs": 0, "top_p": 1.0,
            "presence_penalty": 0.0, "frequency_penalty": 0.0, "truncation": "disabled",
            "metadata": request.get("metadata") or {}, "user": None,
        }  # fmt: skip
        return _put(body, usage)

    def _usage(self) -> Any:
        told = self._said.usage()
        if not isinstance(told, Mapping) or "prompt_tokens" not in told:
            return told
        inside, made = told.get("prompt_tokens_details") or {}, told.get("completion_tokens_details") or {}
        details = {name: inside.get(name, 0) for name in ("cached_tokens", "cache_write_tokens")}
        return {
            "input_tokens": told["prompt_tokens"], "input_tokens_details": details,
            "output_tokens": told.get("completion_tokens"),
            "output_tokens_details": {"reasoning_tokens": made.get("reasoning_tokens", 0)},
            "total_tokens": told.get("total_tokens"),
        }  # fmt: skip


REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


class MessagesSpeaker:
    """Anthropic's messages."""

    def __init__(self, said: Said) -> None:
        self.steps = said.steps
        self._said = said
        self._blocks: list[dict[str, Any]] = []
        self._given: list[str] = []
        """The pieces of the last call's input."""

    def whole(self) -> dict[str, Any]:
        for number in range(len(self.steps)):
            self.step(number)
        self._end()
        reason = self._reason()
        body = {**self._message(self._blocks), "stop_reason": reason, "stop_details": self._details(reason)}
        return _put(body, self._usage())

    def head(self) -> bytes:
        told = self._usage()
        if isinstance(told, Mapping):
            told = {**told, "output_tokens": 1}
        start = frame({"type": "message_start", "message": _put(self._message([]), told)}, "message_start")
        return start + frame({"type": "ping"}, "ping")

    def step(self, number: int) -> bytes:
        step = self.steps[number]
        found = b"".join(self._open(step))
        block = self._blocks[-1]
        if step.kind == "call":
            self._given.append(step.text)
            return found + self._delta({"type": "input_json_delta", "partial_json": step.text})
        if step.kind == "thought":
            block["thinking"] += step.text
            return found + self._delta({"type": "thinking_delta", "thinking": step.text})
        block["text"] += step.text
        return found + self._delta({"type": "text_delta", "text": step.text})

    def tail(self) -> bytes:
        reason = self._reason()
        delta = {"stop_reason": reason, "stop_sequence": None, "stop_details": self._details(reason), "container": None}
        told = self._usage()
        if isinstance(told, Mapping):
            told = {name: value for name, value in told.items() if name not in ("cache_creation", "service_tier")}
        ended = b"".join(self._end())
        return ended + frame(_put({"type": "message_delta", "delta": delta}, told), "message_delta")

    def done(self) -> bytes:
        return frame({"type": "message_stop"}, "message_stop")

    def _message(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": "msg_" + self._said.id.removeprefix("chatcmpl-"), "type": "message", "role": "assistant",
            "model": self._said.model, "content": content, "stop_reason": None, "stop_sequence": None,
            "stop_details": None, "container": None,
        }  # fmt: skip

    def _open(self, step: Step) -> Iterator[bytes]:
        kind = {"call": "tool_use", "thought": "thinking"}.get(step.kind, "text")
        if self._blocks and self._blocks[-1]["type"] == kind and step.begins is None:
            return
        yield from self._end()
        block: dict[str, Any] = {"type": kind}
        if kind == "tool_use" and step.begins is not None:
            block |= {"id": step.begins.id, "name": step.begins.name, "input": {}, "caller": {"type": "direct"}}
        elif kind == "thinking":
            block |= {"thinking": "", "signature": ""}
        else:
            block |= {"text": "", "citations": []}
        self._blocks.append(block)
        index = len(self._blocks) - 1
        start = {"type": "content_block_start", "index": index, "content_block": dict(block)}
        yield frame(start, "content_block_start")

    def _delta(self, delta: dict[str, Any]) -> bytes:
        index = len(self._blocks) - 1
        return frame({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")

    def _end(self) -> list[bytes]:
        if not self._blocks:
            return []
        block, found = self._blocks[-1], []
        if block["type"] == "tool_use":
            block["input"] = json.loads("".join(self._given) or "{}")
            self._given.clear()
        elif block["type"] == "thinking":
            block["signature"] = "c2lnbmVk"
            found.append(self._delta({"type": "signature_delta", "signature": block["signature"]}))
        index = len(self._blocks) - 1
        return [*found, frame({"type": "content_block_stop", "index": index}, "content_block_stop")]

    def _reason(self) -> str:
        refused = any(step.kind == "refusal" for step in self.steps)
        return "refusal" if refused else REASONS.get(self._said.finish, "end_turn")

    @staticmethod
    def _details(reason: str) -> dict[str, Any] | None:
        return {"type": "refusal", "category": None, "explanation": None} if reason == "refusal" else None

    def _usage(self) -> Any:
        told = self._said.usage()
        if not isinstance(told, Mapping) or "prompt_tokens" not in told:
            return told
        inside = told.get("prompt_tokens_details") or {}
        cached, written = inside.get("cached_tokens", 0), inside.get("cache_write_tokens", 0)
        hour = inside.get("cache_write_1h_tokens", 0)
        prompt = told["prompt_tokens"]
        fresh = prompt - cached - written if all(type(n) is int for n in (prompt, cached, written)) else prompt
        return {
            "input_tokens": fresh, "cache_creation_input_tokens": written, "cache_read_input_tokens": cached,
            "cache_creation": {"ephemeral_5m_input_tokens": written - hour, "ephemeral_1h_input_tokens": hour},
            "output_tokens": told.get("completion_tokens"), "output_tokens_details": None, "server_tool_use": None,
            "service_tier": "standard", "inference_geo": None,
        }  # fmt: skip

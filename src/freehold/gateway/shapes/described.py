"""The inference routes for the OpenAPI document: what is read and checked; every other field passes to the upstream."""

from copy import deepcopy
from http import HTTPStatus
from typing import Any

Schema = dict[str, Any]

REFUSALS = (400, 401, 402, 403, 404, 408, 409, 413, 429, 502, 503, 504)

TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object", "additionalProperties": True}
EVENTS: Schema = {
    "type": "object",
    "description": "Server-sent events, each with JSON or an end marker as its data.",
    "properties": {"event": TEXT, "data": TEXT},
}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _any(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _list(items: Schema, least: int = 0) -> Schema:
    return {"type": "array", "items": items, **({"minItems": least} if least else {})}


def _whole(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _const(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _object(required: str, /, **fields: Schema) -> Schema:
    """An object with these fields; those named in `required` are, the others may be null."""
    names = required.split()
    shown = {name: schema if name in names else _or_null(schema) for name, schema in fields.items()}
    return {"type": "object", **({"required": names} if names else {}), "properties": shown}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


MOST_TOKENS = 1_000_000_000
MAXIMUM = {"description": "Most output tokens: held whole, or refused.", **_whole(1, MOST_TOKENS)}
OWN = _object("", store=FLAG)
SAMPLING: dict[str, Schema] = {"temperature": NUMBER, "top_p": NUMBER}
PENALTIES: dict[str, Schema] = {"presence_penalty": NUMBER, "frequency_penalty": NUMBER}
CHOICE = _const("none", "auto", "required")
OPTIONS = _object("", include_usage=FLAG)

SCHEMAS: dict[str, Schema] = {
    "ChatRequest": _object(
        "model messages",
        model=NAME,
        messages=_list(
            _object(
                "role",
                role=TEXT,
                content=_any(
                    TEXT,
                    _list(
                        _any(
                            _object("type text", type=_const("text"), text=TEXT),
                            _object("type image_url", type=_const("image_url"), image_url=_object("url", url=TEXT)),
                        )
                    ),
                ),
                tool_calls=_list(OBJECT),
            ),
            1,
        ),
        max_tokens=MAXIMUM,
        n=_whole(1, 128),
        stream=FLAG,
        stream_options=OPTIONS,
        tools=_list(
            _object("type function", type=_const("function"), function=_object("name", name=TEXT, parameters=OBJECT))
        ),
        tool_choice=_any(CHOICE, OBJECT),
        response_format=OBJECT,
        stop=_any(TEXT, _list(TEXT)),
        seed={"type": "integer"},
        user=TEXT,
        freehold=OWN,
        **SAMPLING,
        **PENALTIES,
    ),
    "ChatCompletion": _object(
        "model choices usage", id=TEXT, model=TEXT, choices=_list(OBJECT), usage=OBJECT, created={"type": "integer"}
    ),
    "CompletionRequest": _object(
        "model prompt",
        model=NAME,
        prompt=_any(TEXT, _list(TEXT, 1), _list(_whole(0, 10_000_000), 1), _list(_list(_whole(0, 10_000_000), 1), 1)),
        max_tokens={**MAXIMUM, "minimum": 0, "default": 16},
        n=_whole(1, 128),
        best_of={**_whole(1, 20), "description": "At least n; not with stream, unless it is n."},
        echo=FLAG,
        suffix=TEXT,
        logprobs=_whole(0, 20),
        stream=FLAG,
        stream_options=OPTIONS,
        stop=_any(TEXT, _list(TEXT)),
        seed={"type": "integer"},
        user=TEXT,
        freehold=OWN,
        **SAMPLING,
        **PENALTIES,
    ),
    "Completion": _object("model choices usage", id=TEXT, model=TEXT, choices=_list(OBJECT), usage=OBJECT),
    "ResponseRequest": _object(
        "model input",
        model=NAME,
        input=_any(TEXT, _list(_ref("ResponseItem"), 1)),
        instructions=TEXT,
        max_output_tokens=MAXIMUM,
        stream=FLAG,
        store={**FLAG, "description": "Nothing is stored, whatever is asked."},
        tools=_list(
            _object("type name", type=_const("function"), name=NAME, description=TEXT, parameters=OBJECT, strict=FLAG)
        ),
        tool_choice=_any(CHOICE, _object("type name", type=_const("function"), name=NAME)),
        text=_object(
            "",
            format=_any(
                _object("type", type=_const("text", "json_object")),
                _object("type name", type=_const("json_schema"), name=NAME, schema=OBJECT, strict=FLAG),
            ),
            verbosity=TEXT,
        ),
        reasoning=_object("", effort=TEXT, summary=TEXT),
        include=_list(TEXT),
        truncation=_const("auto", "disabled"),
        top_logprobs=_whole(0, 20),
        metadata=OBJECT,
        parallel_tool_calls=FLAG,
        user=TEXT,
        freehold=OWN,
        **SAMPLING,
        **PENALTIES,
    ),
    "ResponseItem": _any(
        _object(
            "role content",
            type=_const("message"),
            role=_const("user", "assistant", "system", "developer"),
            content=_any(
                TEXT,
                _list(
                    _any(
                        _object("type text", type=_const("input_text", "output_text"), text=TEXT),
                        _object("type image_url", type=_const("input_image"), image_url=NAME, detail=TEXT),
                    )
                ),
            ),
        ),
        _object("type call_id name arguments", type=_const("function_call"), call_id=NAME, name=NAME, arguments=TEXT),
        _object("type call_id output", type=_const("function_call_output"), call_id=NAME, output=TEXT),
    ),
    "Response": _object(
        "id object model status output usage",
        id=TEXT,
        object=_const("response"),
        model=TEXT,
        status=_const("completed", "incomplete"),
        output=_list(OBJECT),
        usage=OBJECT,
    ),
    "MessageRequest": _object(
        "model messages max_tokens",
        model=NAME,
        messages=_list(_ref("MessageParam"), 1),
        max_tokens=MAXIMUM,
        system=_any(TEXT, _list(_ref("TextBlock"))),
        stream=FLAG,
        stop_sequences=_list(TEXT),
        tools=_list(_ref("MessageTool")),
        tool_choice=_object("type", type=_const("auto", "any", "none")),
        thinking=_any(
            _object("type budget_tokens", type=_const("enabled"), budget_tokens=_whole(1, MOST_TOKENS)),
            _object("type", type=_const("disabled", "adaptive")),
        ),
        output_config=_object(
            "", effort=TEXT, format=_object("type schema", type=_const("json_schema"), schema=OBJECT)
        ),
        metadata=_object("", user_id=TEXT),
        top_k={"type": "integer"},
        freehold=OWN,
        **SAMPLING,
    ),
    "MessageParam": _object(
        "role content",
        role=_const("user", "assistant"),
        content=_any(
            TEXT,
            _list(
                _any(
                    _ref("TextBlock"),
                    _object(
                        "type source",
                        type=_const("image"),
                        source=_any(
                            _object("type media_type data", type=_const("base64"), media_type=NAME, data=NAME),
                            _object("type url", type=_const("url"), url=NAME),
                        ),
                    ),
                    _object("type id name input", type=_const("tool_use"), id=NAME, name=NAME, input=OBJECT),
                    _object("type tool_use_id", type=_const("tool_result"), tool_use_id=NAME, content=TEXT),
                ),
                1,
            ),
        ),
    ),
    "TextBlock": _object("type text", type=_const("text"), text=TEXT),
    "MessageTool": _object("name input_schema", name=NAME, description=TEXT, input_schema=OBJECT),
    "Message": _object(
        "id type role model content usage",
        id=TEXT,
        type=_const("message"),
        role=_const("assistant"),
        model=TEXT,
        content=_list(OBJECT),
        usage=OBJECT,
    ),
    "CountRequest": _object(
        "model messages",
        model=NAME,
        messages=_list(_ref("MessageParam"), 1),
        system=_any(TEXT, _list(_ref("TextBlock"))),
        tools=_list(_ref("MessageTool")),
    ),
    "Count": _object("input_tokens", input_tokens={"type": "integer", "minimum": 0}),
    "EmbeddingRequest": _object(
        "model input",
        model=NAME,
        input=_any(TEXT, _list(TEXT, 1), _list(_whole(0, 10_000_000), 1)),
        encoding_format=TEXT,
        user=TEXT,
        freehold=OWN,
    ),
    "EmbeddingList": _object("model data usage", model=TEXT, data=_list(OBJECT), usage=OBJECT),
    "ModelList": _object("data", data=_list(_ref("ModelEntry")), object=_const("list"), has_more=FLAG),
    "ModelEntry": _object("id", id=TEXT, object=_const("model"), type=_const("model"), owned_by=TEXT),
    "AnthropicError": _object(
        "type error",
        type=_const("error"),
        error=_object("type message", type=TEXT, message=TEXT, code=TEXT, param=TEXT),
        request_id=TEXT,
    ),
}

ROUTES = (
    ("/v1/chat/completions", "chat", "Chat", "ChatRequest", "ChatCompletion", "ErrorBody", True),
    ("/v1/responses", "responses", "Respond", "ResponseRequest", "Response", "ErrorBody", True),
    ("/v1/messages", "messages", "Message, as Anthropic's API", "MessageRequest", "Message", "AnthropicError", True),
    ("/v1/messages/count_tokens", "count_tokens", "Count a message's tokens; costs nothing", "CountRequest", "Count",
     "AnthropicError", False),
    ("/v1/completions", "completions", "Complete a text", "CompletionRequest", "Completion", "ErrorBody", True),
    ("/v1/embeddings", "embeddings", "Embed texts", "EmbeddingRequest", "EmbeddingList", "ErrorBody", False),
)  # fmt: skip

SECURITY: list[dict[str, list[str]]] = [{"HTTPBearer": []}, {"XApiKey": []}]
SCHEMES = {"XApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key (`fh_…`)."}}


def put_in(document: dict[str, Any]) -> None:
    """Add the inference routes to an OpenAPI document that has the account API's. What is added is the document's own."""
    components = document["components"]
    components["schemas"] |= deepcopy(SCHEMAS)
    components.setdefault("securitySchemes", {}).update(deepcopy(SCHEMES))
    for path, name, summary, asked, answered, refused, streams in ROUTES:
        content = {"application/json": {"schema": _ref(answered)}}
        if streams:
            content["text/event-stream"] = {"schema": deepcopy(EVENTS)}
        document["paths"][path] = {
            "post": {
                **_operation(name, summary, content, refused),
                "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(asked)}}},
            }
        }
    listed = _operation("models", "List models", {"application/json": {"schema": _ref("ModelList")}}, "ErrorBody")
    one = _operation("model", "One model", {"application/json": {"schema": _ref("ModelEntry")}}, "ErrorBody")
    one["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": dict(NAME)}]
    document["paths"] |= {"/v1/models": {"get": listed}, "/v1/models/{model}": {"get": one}}


def _operation(name: str, summary: str, content: dict[str, Any], refused: str) -> dict[str, Any]:
    refusal = {"application/json": {"schema": _ref(refused)}}
    return {
        "tags": ["inference"],
        "summary": summary,
        "operationId": f"inference_{name}",
        "security": deepcopy(SECURITY),
        "responses": {
            "200": {"description": "Successful Response", "content": content},
            **{str(status): {"description": HTTPStatus(status).phrase, "content": refusal} for status in REFUSALS},
        },
    }

//! A model's HTTP interfaces (Anthropic Messages, OpenAI Responses and Chat Completions, Gemini), as far as a coding
//! agent's turn needs them: the first request of a conversation is answered with one call of the shell tool that was
//! offered, the one that brings its result with [`DONE`]. Answers are streamed event by event.

use std::time::Duration;

use serde_json::{Value, json};
use stockade_testkit::upstream::{Request, https::Reply};

/// What the model says when the command has run.
pub(crate) const DONE: &str = "MOCK-DONE";

/// What it wants to be run.
pub(crate) const COMMAND: &str = "printf hello-from-mock > out.txt";

/// The shell tools of the agents, by name.
const SHELLS: [&str; 5] = ["Bash", "exec_command", "shell_command", "bash", "run_shell_command"];

/// The answer to `request`, if it carries `key`.
pub(crate) fn answer(request: &Request, key: &str) -> Reply {
    let path = request.target().split('?').next().unwrap_or_default();
    if request.header("upgrade").is_some() {
        return status(426);
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let events = match path.rsplit('/').next().unwrap_or_default() {
        "messages" => messages(&body),
        "responses" => responses(&body),
        "completions" => completions(&body),
        end if end.ends_with(":streamGenerateContent") => gemini(&body),
        _ => return status(404),
    };
    if credential(request) != Some(key) {
        return status(401);
    }
    let piece = |(name, data): &(&str, Value)| {
        let name = if name.is_empty() { String::new() } else { format!("event: {name}\n") };
        (Duration::from_millis(5), format!("{name}data: {data}\n\n").into_bytes())
    };
    let mut reply = Reply::ok("").header("content-type", "text/event-stream");
    reply.pieces = events.iter().map(piece).collect();
    reply
}

/// The key in `request`, where each provider wants it.
pub(crate) fn credential(request: &Request) -> Option<&str> {
    let bearer = request.header("authorization").and_then(|v| v.strip_prefix("Bearer "));
    bearer.or_else(|| request.header("x-api-key")).or_else(|| request.header("x-goog-api-key"))
}

fn status(code: u16) -> Reply {
    let mut reply = Reply::ok(r#"{"error":{"type":"error","message":"not here"}}"#);
    reply.status = code;
    reply.header("content-type", "application/json")
}

/// Name and arguments of the shell tool among those offered; `None` where there is none.
fn shell(body: &Value) -> Option<(String, Value)> {
    let offered = body["tools"].as_array()?.iter().flat_map(|tool| match tool["functionDeclarations"].as_array() {
        Some(functions) => functions.clone(),
        None if tool["function"].is_object() => vec![tool["function"].clone()],
        None => vec![tool.clone()],
    });
    let tool = offered.into_iter().find(|t| t["name"].as_str().is_some_and(|n| SHELLS.contains(&n)))?;
    let schemas = ["parameters", "input_schema", "parametersJsonSchema"];
    let properties = schemas.iter().map(|s| &tool[*s]["properties"]).find(|p| p.is_object())?;
    let word = if properties["cmd"].is_object() { "cmd" } else { "command" };
    let mut arguments = json!({ word: COMMAND });
    if properties["description"].is_object() {
        arguments["description"] = json!("write the file");
    }
    Some((tool["name"].as_str()?.to_owned(), arguments))
}

/// The tool to call, unless `answered`: the conversation has its result already.
fn call(body: &Value, answered: bool) -> Option<(String, Value)> {
    if answered { None } else { shell(body) }
}

fn messages(body: &Value) -> Vec<(&'static str, Value)> {
    let last = body["messages"].as_array().and_then(|m| m.last()).map(|m| &m["content"]);
    let answered = last.and_then(Value::as_array).is_some_and(|c| c.iter().any(|c| c["type"] == "tool_result"));
    let (block, delta, stop) = match call(body, answered) {
        Some((name, input)) => (
            json!({"type": "tool_use", "id": "toolu_01", "name": name, "input": {}}),
            json!({"type": "input_json_delta", "partial_json": input.to_string()}),
            "tool_use",
        ),
        None => (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": DONE}), "end_turn"),
    };
    let message = json!({"id": "msg_01", "type": "message", "role": "assistant", "model": body["model"], "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 10, "output_tokens": 5}});
    let events = [
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 5}}),
        json!({"type": "message_stop"}),
    ];
    let names = ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"];
    names.into_iter().chain(["message_stop"]).zip(events).collect()
}

fn responses(body: &Value) -> Vec<(&'static str, Value)> {
    let output = |i: &Value| i["type"].as_str().is_some_and(|t| t.ends_with("_call_output"));
    let item = match call(body, body["input"].as_array().is_some_and(|i| i.iter().any(output))) {
        Some((name, arguments)) => json!({"type": "function_call", "id": "fc_01", "call_id": "call_01", "name": name,
            "status": "completed", "arguments": arguments.to_string()}),
        None => json!({"type": "message", "id": "msg_01", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": DONE, "annotations": []}]}),
    };
    let response = json!({"id": "resp_01", "object": "response", "created_at": 1, "model": body["model"],
        "status": "completed", "output": [item], "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}});
    let events = [
        ("response.created", json!({"response": {"id": "resp_01", "status": "in_progress", "output": []}})),
        ("response.output_item.done", json!({"output_index": 0, "item": item})),
        ("response.completed", json!({"response": response})),
    ];
    let typed = |(name, mut event): (&'static str, Value)| {
        event["type"] = json!(name);
        (name, event)
    };
    events.into_iter().map(typed).collect()
}

fn completions(body: &Value) -> Vec<(&'static str, Value)> {
    let answered = body["messages"].as_array().and_then(|m| m.last()).is_some_and(|m| m["role"] == "tool");
    let (delta, end) = match call(body, answered) {
        Some((name, arguments)) => {
            let function = json!({"name": name, "arguments": arguments.to_string()});
            let call = json!({"index": 0, "id": "call_01", "type": "function", "function": function});
            (json!({"role": "assistant", "tool_calls": [call]}), "tool_calls")
        }
        None => (json!({"role": "assistant", "content": DONE}), "stop"),
    };
    let chunk = |delta: Value, end: Value| {
        json!({"id": "chatcmpl-01", "object": "chat.completion.chunk", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "delta": delta, "finish_reason": end}]})
    };
    vec![("", chunk(delta, Value::Null)), ("", chunk(json!({}), json!(end)))]
}

fn gemini(body: &Value) -> Vec<(&'static str, Value)> {
    let parts = body["contents"].as_array().and_then(|c| c.last()).and_then(|c| c["parts"].as_array());
    let answered = parts.is_some_and(|p| p.iter().any(|p| p["functionResponse"].is_object()));
    let part = match call(body, answered) {
        Some((name, args)) => json!({"functionCall": {"name": name, "args": args}}),
        None => json!({"text": DONE}),
    };
    let candidate = json!({"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0});
    let usage = json!({"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15});
    vec![("", json!({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "mock"}))]
}

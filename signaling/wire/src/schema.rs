//! The protocol for machines, generated from the types of the frames.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::SUBPROTOCOL;
use crate::client::ClientFrame;
use crate::error::{CloseCode, ErrorCode};
use crate::server::ServerFrame;

/// What the schema needs to know about a frame.
pub(crate) struct FrameInfo {
    pub(crate) kind: &'static str,
    pub(crate) about: &'static str,
    pub(crate) reliable: bool,
    pub(crate) data: fn(&mut SchemaGenerator) -> Schema,
}

/// The JSON Schema (draft 2020-12) of every frame: `oneOf` the definitions `client.<type>` and `server.<type>`.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let (client, server) = frames(&mut generator);
    let mut definitions = generator.take_definitions(true);

    let refs = |frames: &Map<String, Value>| {
        let refs = frames
            .keys()
            .map(|name| json!({ "$ref": format!("#/$defs/{name}") }));
        Value::Array(refs.collect())
    };
    let (client_refs, server_refs) = (refs(&client), refs(&server));

    definitions.extend(client);
    definitions.extend(server);
    definitions.insert("ClientFrame".to_owned(), json!({ "oneOf": client_refs }));
    definitions.insert("ServerFrame".to_owned(), json!({ "oneOf": server_refs }));

    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SUBPROTOCOL,
        "description": "A frame between a Device and the server.",
        "anyOf": [{ "$ref": "#/$defs/ClientFrame" }, { "$ref": "#/$defs/ServerFrame" }],
        "$defs": definitions,
    })
}

/// The AsyncAPI 3 document: the server receives every client frame and sends every server frame on one channel.
pub fn asyncapi() -> Value {
    let settings = SchemaSettings::draft07()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let (client, server) = frames(&mut generator);
    let definitions = generator.take_definitions(true);

    let mut messages = Map::new();
    let mut operations = Map::new();

    for (action, frames) in [("receive", client), ("send", server)] {
        for (name, payload) in frames {
            let operation = json!({
                "action": action,
                "channel": { "$ref": "#/channels/calls" },
                "summary": payload["description"],
                "messages": [{ "$ref": format!("#/channels/calls/messages/{name}") }],
            });
            let message = json!({
                "name": payload["properties"]["type"]["const"],
                "summary": payload["description"],
                "contentType": "application/json",
                "payload": payload,
            });

            operations.insert(name.clone(), operation);
            messages.insert(name, message);
        }
    }

    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Offhook calls",
            "version": SUBPROTOCOL,
            "description": "How a Device talks to Offhook: JSON text frames over one WebSocket.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "calls": {
                "address": "/v1/calls",
                "description": format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}"),
                "messages": messages,
                "bindings": { "ws": { "method": "GET", "bindingVersion": "0.1.0" } },
                "x-close-codes": close_codes(),
                "x-error-codes": ErrorCode::ALL,
            },
        },
        "operations": operations,
        "components": { "schemas": definitions },
    })
}

/// The schema of each frame with its envelope, by `client.<type>` and `server.<type>`.
fn frames(generator: &mut SchemaGenerator) -> (Map<String, Value>, Map<String, Value>) {
    let mut of = |side: &str, infos: &[FrameInfo]| {
        let named = infos
            .iter()
            .map(|info| (format!("{side}.{}", info.kind), frame(info, generator)));
        named.collect::<Map<_, _>>()
    };

    (
        of("client", ClientFrame::INFO),
        of("server", ServerFrame::INFO),
    )
}

fn frame(info: &FrameInfo, generator: &mut SchemaGenerator) -> Value {
    let id = generator.subschema_for::<model::MessageId>();
    let count = json!({ "type": "integer", "minimum": 0 });
    let data = (info.data)(generator);
    let is_answer = matches!(info.kind, "ok" | "error");

    let mut properties = Map::new();
    properties.insert("type".to_owned(), json!({ "const": info.kind }));
    properties.insert("id".to_owned(), id.clone().to_value());
    properties.insert("ack".to_owned(), count.clone());
    properties.insert("data".to_owned(), data.to_value());
    if info.reliable {
        properties.insert("seq".to_owned(), count);
    }
    if is_answer || info.kind == "welcome" {
        properties.insert("reply_to".to_owned(), id.to_value());
    }

    // An error that answers no reliable frame has no `seq`.
    let required: &[&str] = if info.reliable && info.kind != "error" {
        &["type", "id", "seq"]
    } else {
        &["type"]
    };

    json!({
        "type": "object",
        "description": info.about.trim(),
        "properties": properties,
        "required": required,
    })
}

fn close_codes() -> Value {
    let codes = [
        (CloseCode::Bye, "bye"),
        (CloseCode::Goaway, "goaway"),
        (CloseCode::FrameTooLarge, "frame too large"),
        (CloseCode::BadFrame, "bad frame"),
        (CloseCode::Replaced, "replaced by a newer socket"),
        (CloseCode::WrongSequence, "wrong sequence"),
        (CloseCode::Unauthorized, "unauthorized"),
        (CloseCode::TooSlow, "too slow"),
        (CloseCode::HelloExpected, "hello expected"),
        (CloseCode::TooManyConnections, "too many connections"),
        (CloseCode::RateLimited, "rate limited"),
    ];

    codes
        .into_iter()
        .map(|(code, about)| (code.as_u16().to_string(), json!(about)))
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_in_both_documents_and_every_reference_resolves() {
        for (document, prefix) in [(schema(), "/$defs/"), (asyncapi(), "/components/schemas/")] {
            let text = document.to_string();
            for info in ClientFrame::INFO.iter().chain(ServerFrame::INFO) {
                assert!(
                    text.contains(&format!("\"const\":\"{}\"", info.kind)),
                    "{} is missing",
                    info.kind
                );
            }

            let mut checked = 0;
            for reference in text.split("\"$ref\":\"#").skip(1) {
                let pointer = reference.split('"').next().unwrap();
                assert!(
                    document.pointer(pointer).is_some(),
                    "{pointer} does not resolve"
                );
                checked += usize::from(pointer.starts_with(prefix));
            }
            assert!(checked > 50);
        }
    }

    #[test]
    fn doc_comments_become_descriptions() {
        let document = schema();
        let invite = &document["$defs"]["client.call.invite"];

        assert_eq!(invite["description"], "Rings a User.");
        assert_eq!(
            document["$defs"]["Invite"]["properties"]["to"]["description"],
            "Whom to ring: a User, or a phone (`tel:`, `sip:`)."
        );
    }
}

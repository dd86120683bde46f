//! The JSON of the exec websocket.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::model::exec::ExecInput;
use crate::model::exec::ExecOutput;

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireInput {
    stdin: Option<WireStream>,
    tty_size: Option<WireSize>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireStream {
    data: Option<String>,
    close: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireSize {
    height: u16,
    width: u16,
}

/// What a frame of the client says. Nothing for a heartbeat, and for what makes no sense, as in Nomad.
pub(super) fn decode(text: &str) -> Vec<ExecInput> {
    let Ok(wire) = serde_json::from_str::<WireInput>(text) else { return Vec::new() };
    let mut said = Vec::new();
    if let Some(size) = wire.tty_size {
        said.push(ExecInput::Resize { rows: size.height, columns: size.width });
    }
    if let Some(stdin) = wire.stdin {
        let data = stdin.data.and_then(|data| STANDARD.decode(data).ok()).unwrap_or_default();
        if !data.is_empty() {
            said.push(ExecInput::Data(data));
        }
        if stdin.close {
            said.push(ExecInput::Close);
        }
    }
    said
}

/// The frames of a message; the last ones also close the streams.
pub(super) fn encode(output: &ExecOutput, tty: bool) -> Vec<String> {
    let data = |stream: &str, data: &[u8]| vec![json!({stream: {"data": STANDARD.encode(data)}}).to_string()];
    match output {
        ExecOutput::Stdout(bytes) => data("stdout", bytes),
        ExecOutput::Stderr(bytes) => data("stderr", bytes),
        ExecOutput::Exited(code) => {
            let closed = |stream: &str| json!({stream: {"close": true}}).to_string();
            // Zero is left out, but the result is always there.
            let result = if *code == 0 { json!({}) } else { json!({"exit_code": code}) };
            let mut frames = if tty { Vec::new() } else { vec![closed("stderr")] };
            frames.push(closed("stdout"));
            frames.push(json!({"exited": true, "result": result}).to_string());
            frames
        }
    }
}

/// Reads the handshake of browsers, which cannot set headers: the token, or the version that is not understood.
pub(super) fn handshake(text: &str) -> Result<String, i64> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    match value.get("version").and_then(Value::as_i64).unwrap_or(0) {
        1 => Ok(value.get("auth_token").and_then(Value::as_str).unwrap_or_default().to_owned()),
        other => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_the_client_are_read_and_nonsense_is_swallowed() {
        assert_eq!(decode(r#"{"stdin":{"data":"bHMK"}}"#), [ExecInput::Data(b"ls\n".to_vec())]);
        assert_eq!(decode(r#"{"stdin":{"close":true}}"#), [ExecInput::Close]);
        assert_eq!(
            decode(r#"{"stdin":{"data":"bHMK","close":true}}"#),
            [ExecInput::Data(b"ls\n".to_vec()), ExecInput::Close]
        );
        assert_eq!(
            decode(r#"{"tty_size":{"height":24,"width":80}}"#),
            [ExecInput::Resize { rows: 24, columns: 80 }]
        );
        for nonsense in ["{}", "not json", "[]", r#"{"stdin":{"data":"%"}}"#] {
            assert_eq!(decode(nonsense), [], "{nonsense}");
        }
    }

    #[test]
    fn the_end_closes_the_streams_first() {
        assert_eq!(
            encode(&ExecOutput::Exited(3), false),
            [
                r#"{"stderr":{"close":true}}"#,
                r#"{"stdout":{"close":true}}"#,
                r#"{"exited":true,"result":{"exit_code":3}}"#
            ]
        );
        assert_eq!(
            encode(&ExecOutput::Exited(0), true),
            [r#"{"stdout":{"close":true}}"#, r#"{"exited":true,"result":{}}"#]
        );
        assert_eq!(encode(&ExecOutput::Stderr(b"x".to_vec()), false), [r#"{"stderr":{"data":"eA=="}}"#]);
    }

    #[test]
    fn a_handshake_has_version_one() {
        assert_eq!(handshake(r#"{"version":1,"auth_token":"secret"}"#), Ok("secret".to_owned()));
        assert_eq!(handshake(r#"{"auth_token":"secret"}"#), Err(0));
        assert_eq!(handshake(r#"{"version":2}"#), Err(2));
    }
}

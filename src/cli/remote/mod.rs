//! A command in a task, with this terminal at its other end: what `alloc exec` and `job action` have in common.

mod escape;
mod terminal;

use std::io;
use std::io::IsTerminal;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::mpsc;

use super::argv::parse_bool;
use super::context::Failure;
use super::context::Outcome;
use super::output::Output;
use super::view::View;
use crate::client::Socket;
use crate::client::SocketMessage;

use self::escape::Escape;
use self::escape::Typed;
use self::terminal::RawMode;

/// The other side hears from us this often.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Close codes that are no error.
const NORMAL: [u16; 3] = [1000, 1001, 1005];
/// The exit code of a session that the person left.
const LEFT: u8 = 1;

/// The flags of an interactive command.
#[derive(clap::Args, Clone, Debug)]
pub struct Interactive {
    /// Pass standard input on. Default = true
    #[arg(long = "i", value_name = "bool", require_equals = true)]
    input: Option<String>,
    /// Give the command a terminal. Default = true if standard input and output are terminals
    #[arg(long = "t", value_name = "bool", require_equals = true)]
    terminal: Option<String>,
    /// The sign that, typed at the beginning of a line and followed by a dot, ends the session; or 'none'.
    #[arg(long = "e", value_name = "sign", default_value = "~")]
    escape: String,
}

/// The settings that follow from the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    pub tty: bool,
    input: bool,
    escape: Option<u8>,
}

impl Interactive {
    /// Looks at the flags and at the terminal.
    ///
    /// # Errors
    /// They make no sense.
    pub fn mode(&self) -> Result<Mode, Failure> {
        let terminals = io::stdin().is_terminal() && io::stdout().is_terminal();
        let input = flag("i", self.input.as_deref())?.unwrap_or(true);
        let tty = flag("t", self.terminal.as_deref())?.unwrap_or(terminals && input);
        if tty && !input {
            return Err("-i must be enabled if running with tty".into());
        }
        let escape = match self.escape.as_bytes() {
            b"none" => None,
            [sign] => Some(*sign),
            _ => return Err("-e requires 'none' or a single character".into()),
        };
        Ok(Mode { tty, input, escape: escape.filter(|_| tty) })
    }
}

fn flag(name: &str, value: Option<&str>) -> Result<Option<bool>, Failure> {
    let Some(text) = value else { return Ok(None) };
    let wrong = || Failure::from(format!("invalid boolean value {text:?} for -{name}: parse error"));
    parse_bool(text).map(Some).ok_or_else(wrong)
}

/// Talks until the command has ended, and gives its exit code.
///
/// # Errors
/// The other side's reason for not running it.
pub async fn converse(out: Output, socket: Socket, mode: Mode) -> Outcome {
    let failed = |why: String| Failure::from(format!("failed to exec into task: {why}"));
    let raw = if mode.tty { RawMode::enter().map_err(|why| failed(why.to_string()))? } else { None };
    let Socket { incoming, outgoing } = socket;
    let watched = |kind| signal(kind).map_err(|why| failed(why.to_string()));
    let (mut terminate, mut hang_up) = (watched(SignalKind::terminate())?, watched(SignalKind::hangup())?);
    let outcome = tokio::select! {
        outcome = hear(out, incoming) => outcome.map_err(failed),
        () = type_all(&outgoing, mode) => {
            drop(raw);
            out.line("\nConnection closed");
            return Ok(LEFT);
        }
        () = resize(&outgoing, mode) => Ok(LEFT),
        () = beat(&outgoing) => Ok(LEFT),
        // The terminal must be left as it was.
        _ = terminate.recv() => Ok(LEFT),
        _ = hang_up.recv() => Ok(LEFT),
    };
    drop(raw);
    outcome
}

/// Shows what the command says; its exit code.
async fn hear(out: Output, mut incoming: BoxStream<'static, SocketMessage>) -> Result<u8, String> {
    while let Some(message) = incoming.next().await {
        let text = match message {
            SocketMessage::Text(text) => text,
            SocketMessage::Close { reason, .. } if !reason.is_empty() => return Err(reason),
            SocketMessage::Close { code, .. } if NORMAL.contains(&code) => break,
            SocketMessage::Close { code, .. } => return Err(format!("websocket: close {code}")),
        };
        let frame: Value = serde_json::from_str(&text).map_err(|why| format!("unreadable frame: {why}"))?;
        let data = |stream: &str| STANDARD.decode(frame.field(stream).text("data")).unwrap_or_default();
        out.raw(&data("stdout"));
        out.raw_error(&data("stderr"));
        if frame.flag("exited") {
            let code = frame.field("result").int("exit_code");
            return Ok(u8::try_from(code & 0xff).unwrap_or(1));
        }
    }
    Err("the connection was closed before the command had ended".to_owned())
}

/// Passes on what is typed. Returns when the person leaves.
async fn type_all(to: &mpsc::Sender<String>, mode: Mode) {
    let mut escape = Escape::new(mode.escape);
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 8 * 1024];
    loop {
        let length = if mode.input { stdin.read(&mut buffer).await.unwrap_or(0) } else { 0 };
        if length == 0 {
            break;
        }
        let Typed { bytes, leave } = escape.take(&buffer[..length]);
        if !bytes.is_empty() {
            tell(to, &json!({"stdin": {"data": STANDARD.encode(&bytes)}})).await;
        }
        if leave {
            return;
        }
    }
    tell(to, &json!({"stdin": {"close": true}})).await;
    std::future::pending::<()>().await;
}

/// Tells the size of the terminal, now and whenever it changes.
async fn resize(to: &mpsc::Sender<String>, mode: Mode) {
    let changes = signal(SignalKind::window_change());
    let (true, Ok(mut changes)) = (mode.tty, changes) else { return std::future::pending().await };
    loop {
        if let Some((height, width)) = terminal::size() {
            tell(to, &json!({"tty_size": {"height": height, "width": width}})).await;
        }
        if changes.recv().await.is_none() {
            return std::future::pending().await;
        }
    }
}

async fn beat(to: &mpsc::Sender<String>) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        tell(to, &json!({})).await;
    }
}

/// A connection that is gone is noticed where it is read.
async fn tell(to: &mpsc::Sender<String>, frame: &Value) {
    let _ = to.send(frame.to_string()).await;
}

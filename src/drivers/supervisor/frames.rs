//! What passes between the agent and an interactive command, once that runs: a kind, a length, and bytes.

use std::io;
use std::os::unix::net::UnixStream;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;

use crate::drivers::session::ExecSession;
use crate::drivers::session::SessionEnds;
use crate::model::exec::ExecInput;
use crate::model::exec::ExecOutput;

/// Kind and length.
const HEAD: usize = 5;
/// The largest frame, bytes. Longer data is cut.
const MAX_DATA: usize = 64 * 1024;

const STDIN: u8 = 0;
const CLOSE: u8 = 1;
const RESIZE: u8 = 2;
const STDOUT: u8 = 16;
const STDERR: u8 = 17;
const EXITED: u8 = 18;

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// The other side speaks otherwise.
    fn next(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let Some((head, rest)) = self.pending.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > MAX_DATA {
            return Err(io::Error::other("a frame of an interactive command is too large"));
        }
        let (kind, Some(data)) = (head[0], rest.get(..length)) else { return Ok(None) };
        let data = data.to_vec();
        self.pending.drain(..HEAD + length);
        Ok(Some((kind, data)))
    }

    /// The next message of the person.
    ///
    /// # Errors
    /// The other side speaks otherwise.
    pub(super) fn next_input(&mut self) -> io::Result<Option<ExecInput>> {
        let Some((kind, data)) = self.next()? else { return Ok(None) };
        match (kind, data.as_slice()) {
            (STDIN, _) => Ok(Some(ExecInput::Data(data))),
            (CLOSE, []) => Ok(Some(ExecInput::Close)),
            (RESIZE, &[a, b, c, d]) => Ok(Some(ExecInput::Resize {
                rows: u16::from_le_bytes([a, b]),
                columns: u16::from_le_bytes([c, d]),
            })),
            _ => Err(unknown(kind)),
        }
    }

    /// The next message of the command.
    ///
    /// # Errors
    /// The other side speaks otherwise.
    fn next_output(&mut self) -> io::Result<Option<ExecOutput>> {
        let Some((kind, data)) = self.next()? else { return Ok(None) };
        match (kind, data.as_slice()) {
            (STDOUT, _) => Ok(Some(ExecOutput::Stdout(data))),
            (STDERR, _) => Ok(Some(ExecOutput::Stderr(data))),
            (EXITED, &[a, b, c, d]) => Ok(Some(ExecOutput::Exited(i32::from_le_bytes([a, b, c, d])))),
            _ => Err(unknown(kind)),
        }
    }
}

fn unknown(kind: u8) -> io::Error {
    io::Error::other(format!("a frame of an interactive command is of unknown kind {kind}"))
}

fn frame(kind: u8, data: &[u8], into: &mut Vec<u8>) {
    // Nothing of no length is said but that the input ends.
    let empty = (data.is_empty() && kind == CLOSE).then_some(data);
    for piece in empty.into_iter().chain(data.chunks(MAX_DATA)) {
        into.push(kind);
        into.extend_from_slice(&u32::try_from(piece.len()).unwrap_or(0).to_le_bytes());
        into.extend_from_slice(piece);
    }
}

fn encode_input(input: &ExecInput) -> Vec<u8> {
    let mut bytes = Vec::new();
    match input {
        ExecInput::Data(data) => frame(STDIN, data, &mut bytes),
        ExecInput::Close => frame(CLOSE, &[], &mut bytes),
        ExecInput::Resize { rows, columns } => {
            let size = [rows.to_le_bytes(), columns.to_le_bytes()].concat();
            frame(RESIZE, &size, &mut bytes);
        }
    }
    bytes
}

/// Appends a message of the command.
pub(super) fn encode_output(output: &ExecOutput, into: &mut Vec<u8>) {
    match output {
        ExecOutput::Stdout(data) => frame(STDOUT, data, into),
        ExecOutput::Stderr(data) => frame(STDERR, data, into),
        ExecOutput::Exited(code) => frame(EXITED, &code.to_le_bytes(), into),
    }
}

/// The agent's end of the connection as a session.
///
/// # Errors
/// The connection cannot be registered with the runtime.
pub(super) fn attach(connection: UnixStream) -> io::Result<ExecSession> {
    connection.set_nonblocking(true)?;
    let (from, to) = tokio::net::UnixStream::from_std(connection)?.into_split();
    let (session, ends) = ExecSession::pair();
    tokio::spawn(async move {
        let SessionEnds { input, output } = ends;
        // Whatever ends first closes the connection, and with it the command.
        tokio::select! {
            () = tell(to, input) => {}
            () = hear(from, &output) => {}
            () = output.closed() => {}
        }
    });
    Ok(session)
}

/// Passes on what is typed; without more to type the command goes on.
async fn tell(mut to: OwnedWriteHalf, mut input: mpsc::Receiver<ExecInput>) {
    while let Some(message) = input.recv().await {
        if to.write_all(&encode_input(&message)).await.is_err() {
            break;
        }
    }
    // The half stays open: closing it would end the command.
    std::future::pending::<()>().await;
    drop(to);
}

async fn hear(mut from: OwnedReadHalf, output: &mpsc::Sender<ExecOutput>) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        loop {
            match decoder.next_output() {
                Ok(Some(message)) => {
                    let is_last = matches!(message, ExecOutput::Exited(_));
                    if output.send(message).await.is_err() || is_last {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "lost an interactive command");
                    return;
                }
            }
        }
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => decoder.push(&buffer[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_being_cut_anywhere() {
        let sent = [
            ExecInput::Data(b"ls\n".to_vec()),
            ExecInput::Resize { rows: 24, columns: 300 },
            ExecInput::Close,
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(encode_input).collect();
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.push(part);
                while let Some(message) = decoder.next_input().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, sent, "cut at {cut}");
        }
    }

    #[test]
    fn long_output_becomes_several_frames() {
        let mut bytes = Vec::new();
        encode_output(&ExecOutput::Stderr(vec![7; MAX_DATA + 1]), &mut bytes);
        encode_output(&ExecOutput::Exited(-1), &mut bytes);
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        assert_eq!(decoder.next_output().unwrap(), Some(ExecOutput::Stderr(vec![7; MAX_DATA])));
        assert_eq!(decoder.next_output().unwrap(), Some(ExecOutput::Stderr(vec![7])));
        assert_eq!(decoder.next_output().unwrap(), Some(ExecOutput::Exited(-1)));
        assert_eq!(decoder.next_output().unwrap(), None);
    }

    #[test]
    fn other_bytes_are_an_error() {
        let mut decoder = Decoder::default();
        decoder.push(&[9, 0, 0, 0, 0]);
        assert!(decoder.next_input().is_err());
        decoder = Decoder::default();
        decoder.push(&[0, 255, 255, 255, 255]);
        assert!(decoder.next_input().is_err());
    }
}

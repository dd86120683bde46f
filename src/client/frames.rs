//! Decodes the stream frames of the file and log routes: JSON objects that follow each other without separator.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::ClientError;

/// One frame. An empty one is a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Bytes of the file.
    pub data: Vec<u8>,
    /// The file they belong to, where it changed.
    pub file: String,
    /// `file deleted`, `file truncated`, or empty.
    pub event: String,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[derive(Default)]
struct WireFrame {
    data: String,
    file: String,
    file_event: String,
}

/// Collects bytes until they make a frame.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    pending: Vec<u8>,
}

impl FrameDecoder {
    /// Takes more bytes and gives the frames that are complete now.
    ///
    /// # Errors
    /// When the bytes are not frames.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, ClientError> {
        self.pending.extend_from_slice(bytes);
        let mut frames = Vec::new();
        let mut used = 0;
        let mut parser = serde_json::Deserializer::from_slice(&self.pending).into_iter::<WireFrame>();
        loop {
            match parser.next() {
                Some(Ok(wire)) => {
                    used = parser.byte_offset();
                    let data = STANDARD.decode(&wire.data).map_err(invalid)?;
                    frames.push(Frame { data, file: wire.file, event: wire.file_event });
                }
                Some(Err(why)) if why.is_eof() => break,
                Some(Err(why)) => return Err(invalid(why)),
                None => {
                    used = self.pending.len();
                    break;
                }
            }
        }
        self.pending.drain(..used);
        Ok(frames)
    }
}

fn invalid(why: impl std::fmt::Display) -> ClientError {
    ClientError::Decode { path: "a stream of frames".to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_may_be_cut_anywhere() {
        let wire = br#"{"Data":"aGVs","File":"alloc/logs/web.stdout.0"}{}{"Data":"bG8="}"#;
        for cut in 0..wire.len() {
            let mut decoder = FrameDecoder::default();
            let mut frames = decoder.push(&wire[..cut]).unwrap();
            frames.extend(decoder.push(&wire[cut..]).unwrap());
            let text: Vec<u8> = frames.iter().flat_map(|frame| frame.data.clone()).collect();
            assert_eq!((frames.len(), text.as_slice()), (3, b"hello".as_slice()), "cut at {cut}");
        }
    }

    #[test]
    fn other_text_is_an_error() {
        assert!(FrameDecoder::default().push(b"not json").is_err());
    }
}

//! How a file looks to clients: its mode in Go's letters, and what kind of content it has.

use std::fs::Metadata;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;

/// Bytes of a file that its kind is guessed from.
pub(super) const SNIFF: usize = 512;
const TEXT: &str = "text/plain; charset=utf-8";
const BINARY: &str = "application/octet-stream";

/// By the end of the name. The content decides for the others.
const EXTENSIONS: [(&str, &str); 15] = [
    ("css", "text/css; charset=utf-8"),
    ("gif", "image/gif"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("wasm", "application/wasm"),
    ("webp", "image/webp"),
    ("xml", "text/xml; charset=utf-8"),
];

/// By the first bytes.
const BEGINNINGS: [(&[u8], &str); 8] = [
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x1f\x8b\x08", "application/x-gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"<?xml", "text/xml; charset=utf-8"),
];

/// Tags that make text HTML, in lower case.
const HTML: [&[u8]; 8] =
    [b"<!doctype html", b"<html", b"<head", b"<script", b"<iframe", b"<body", b"<title", b"<!--"];

/// The kind of content of a file called `name` that begins with `beginning`.
pub(super) fn content_type(name: &str, beginning: &[u8]) -> &'static str {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_lowercase());
    if let Some(known) = EXTENSIONS.iter().find(|(known, _)| extension.as_deref() == Some(known)) {
        return known.1;
    }
    if let Some(known) = BEGINNINGS.iter().find(|(start, _)| beginning.starts_with(start)) {
        return known.1;
    }
    let text = beginning.trim_ascii_start().to_ascii_lowercase();
    if HTML.iter().any(|tag| text.starts_with(tag)) {
        return "text/html; charset=utf-8";
    }
    let is_binary = |byte: &u8| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    if beginning.iter().any(is_binary) { BINARY } else { TEXT }
}

/// As Go prints a file mode: `-rw-r--r--`, `drwxr-xr-x`, `Lrwxrwxrwx`, `dtrwxrwxrwx`.
pub(super) fn file_mode(metadata: &Metadata) -> String {
    let (kind, mode) = (metadata.file_type(), metadata.mode());
    let mut text = String::new();
    for (is, letters) in [
        (kind.is_dir(), "d"),
        (kind.is_symlink(), "L"),
        (kind.is_block_device(), "D"),
        (kind.is_char_device(), "Dc"),
        (kind.is_fifo(), "p"),
        (kind.is_socket(), "S"),
        (mode & 0o4000 != 0, "u"),
        (mode & 0o2000 != 0, "g"),
        (mode & 0o1000 != 0, "t"),
    ] {
        if is {
            text.push_str(letters);
        }
    }
    if text.is_empty() {
        text.push('-');
    }
    for (bit, letter) in (0..9).rev().zip("rwxrwxrwx".chars()) {
        text.push(if mode & (1 << bit) != 0 { letter } else { '-' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_known_by_name_or_beginning() {
        for (name, beginning, expected) in [
            ("a", &b"text \n\t"[..], TEXT),
            ("a", b"", TEXT),
            ("a", b"\x7fELF\x02\x01\x01\0", BINARY),
            ("a.JSON", b"{}", "application/json"),
            ("a", b" \n<HTML>", "text/html; charset=utf-8"),
            ("a.tgz", b"\x1f\x8b\x08\0", "application/x-gzip"),
        ] {
            assert_eq!(content_type(name, beginning), expected, "{name}");
        }
    }
}

//! The way out of a session whose command does not end: `~.` at the beginning of a line.

/// Looks for the escape in what is typed.
#[derive(Clone, Debug)]
pub(super) struct Escape {
    sign: Option<u8>,
    at_line_start: bool,
    /// The sign was typed and is held back until it is known what it meant.
    held: bool,
}

/// What to do with typed bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Typed {
    /// To be sent on.
    pub(super) bytes: Vec<u8>,
    /// The session is over.
    pub(super) leave: bool,
}

impl Escape {
    /// Looks for this sign; for nothing without one.
    pub(super) fn new(sign: Option<u8>) -> Self {
        Self { sign, at_line_start: true, held: false }
    }

    pub(super) fn take(&mut self, typed: &[u8]) -> Typed {
        let Some(sign) = self.sign else { return Typed { bytes: typed.to_vec(), leave: false } };
        let mut bytes = Vec::with_capacity(typed.len());
        for &byte in typed {
            if self.held {
                self.held = false;
                match byte {
                    b'.' => return Typed { bytes, leave: true },
                    // Twice means once.
                    _ if byte == sign => {
                        bytes.push(sign);
                        self.at_line_start = false;
                        continue;
                    }
                    _ => bytes.push(sign),
                }
            } else if self.at_line_start && byte == sign {
                self.held = true;
                continue;
            }
            bytes.push(byte);
            self.at_line_start = matches!(byte, b'\r' | b'\n');
        }
        Typed { bytes, leave: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(parts: &[&str]) -> (String, bool) {
        let mut escape = Escape::new(Some(b'~'));
        let mut sent = Vec::new();
        for part in parts {
            let Typed { bytes, leave } = escape.take(part.as_bytes());
            sent.extend(bytes);
            if leave {
                return (String::from_utf8(sent).unwrap(), true);
            }
        }
        (String::from_utf8(sent).unwrap(), false)
    }

    #[test]
    fn a_tilde_and_a_dot_at_the_beginning_of_a_line_leave() {
        assert_eq!(typed(&["~."]), (String::new(), true));
        assert_eq!(typed(&["ls\r", "~", "."]), ("ls\r".into(), true));
        assert_eq!(typed(&["ls ~.\n"]), ("ls ~.\n".into(), false));
        assert_eq!(typed(&["~/x\n~~.\n"]), ("~/x\n~.\n".into(), false));
        assert_eq!(Escape::new(None).take(b"~."), Typed { bytes: b"~.".to_vec(), leave: false });
    }
}

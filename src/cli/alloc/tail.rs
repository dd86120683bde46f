//! The end of a file or log: so many bytes of it, or so many lines.

use crate::cli::context::Failure;

/// Lines shown unless a number is given.
const LINES: i64 = 10;
/// How long a line is taken to be, in bytes, when looking for the last ones.
const BYTES_PER_LINE: i64 = 120;

/// Where to begin, and what to show of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Bytes before the end; from the start when absent.
    pub offset: Option<i64>,
    /// Of what was there before, only so many lines.
    lines: Option<i64>,
}

impl Tail {
    /// What `-tail`, `-n` and `-c` ask for. Without `-tail` the others mean nothing.
    ///
    /// # Errors
    /// Both numbers are given.
    pub fn of(tail: bool, lines: Option<i64>, bytes: Option<i64>) -> Result<Self, Failure> {
        let (lines, bytes) = (lines.filter(|n| *n >= 0), bytes.filter(|c| *c >= 0));
        match (tail, lines, bytes) {
            (false, ..) => Ok(Self::default()),
            (true, Some(_), Some(_)) => Err("both -n and -c set".into()),
            (true, None, Some(bytes)) => Ok(Self { offset: Some(bytes), lines: None }),
            (true, lines, None) => {
                let lines = lines.unwrap_or(LINES);
                Ok(Self { offset: Some(lines.saturating_mul(BYTES_PER_LINE)), lines: Some(lines) })
            }
        }
    }

    /// What has been read, to be cut to the lines that are wanted.
    pub fn window(self) -> Window {
        Window { lines: self.lines, enough: self.offset.unwrap_or(0), held: Vec::new() }
    }
}

/// Holds back what was there before, until all of it is there.
#[derive(Clone, Debug)]
pub struct Window {
    lines: Option<i64>,
    enough: i64,
    held: Vec<u8>,
}

impl Window {
    /// Takes the data of a frame and gives what is to be shown now. `follow`: a pause or enough bytes mean that all
    /// that was there has come.
    pub fn take(&mut self, data: Vec<u8>, follow: bool) -> Vec<u8> {
        if self.lines.is_none() {
            return data;
        }
        let pause = data.is_empty();
        self.held.extend(data);
        let full = i64::try_from(self.held.len()).is_ok_and(|held| held >= self.enough);
        if follow && (pause || full) { self.rest() } else { Vec::new() }
    }

    /// What is still held back, at the end.
    pub fn rest(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        match self.lines.take() {
            Some(lines) => last_lines(&held, lines).to_vec(),
            None => held,
        }
    }
}

/// The last lines of a text; a newline at the end begins no further line.
fn last_lines(text: &[u8], lines: i64) -> &[u8] {
    let mut seen = 0;
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    if lines <= 0 {
        return &[];
    }
    for (at, byte) in body.iter().enumerate().rev() {
        if *byte == b'\n' {
            seen += 1;
            if seen == lines {
                return &text[at + 1..];
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 1), b"c");
        assert_eq!(last_lines(b"a\n", 5), b"a\n");
        assert_eq!(last_lines(b"a\n", 0), b"");
    }

    #[test]
    fn the_first_window_is_cut_and_the_rest_is_not() {
        let tail = Tail::of(true, Some(1), None).unwrap();
        assert_eq!(tail.offset, Some(120));
        let mut window = tail.window();
        assert_eq!(window.take(b"a\nb\n".to_vec(), true), b"");
        assert_eq!(window.take(Vec::new(), true), b"b\n");
        assert_eq!(window.take(b"c\nd\n".to_vec(), true), b"c\nd\n");
        assert_eq!(window.rest(), b"");
        let mut whole = Tail::of(true, None, Some(3)).unwrap().window();
        assert_eq!(whole.take(b"a\nb".to_vec(), false), b"a\nb");
        assert!(Tail::of(true, Some(1), Some(1)).is_err());
        assert_eq!(Tail::of(false, Some(1), Some(1)).unwrap().offset, None);
    }
}

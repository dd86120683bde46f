//! Everything the program prints goes through here: streams, colours, tables and key-value blocks.

use std::io;
use std::io::IsTerminal;
use std::io::Read;
use std::io::Write;

/// What an empty cell or value shows.
pub const NONE: &str = "<none>";
/// Between two columns of a table.
const COLUMN_GAP: &str = "  ";

/// Colours, as parameters of the SGR escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Bold,
    BoldGreen,
    BoldYellow,
    BoldRed,
    Green,
    Yellow,
    LightYellow,
    Red,
    Cyan,
    Blue,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::BoldGreen => "1;32",
            Self::BoldYellow => "1;33",
            Self::BoldRed => "1;31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::LightYellow => "93",
            Self::Red => "31",
            Self::Cyan => "36",
            Self::Blue => "34",
        }
    }
}

/// The streams of the program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    color: bool,
    terminal: bool,
}

impl Output {
    /// Colours are on when standard output is a terminal or `force` is set, and `off` is not.
    pub fn new(off: bool, force: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { color: (terminal || force) && !off, terminal }
    }

    /// Whether escapes may be written.
    pub fn is_colored(self) -> bool {
        self.color
    }

    /// Whether standard output is a terminal.
    pub fn is_terminal(self) -> bool {
        self.terminal
    }

    /// Whether a person can be asked something.
    pub fn is_interactive(self) -> bool {
        self.terminal && io::stdin().is_terminal()
    }

    /// Prints a line on standard output. A reader that went away is no reason to fail.
    pub fn line(self, text: impl AsRef<str>) {
        self.raw(format!("{}\n", text.as_ref()).as_bytes());
    }

    /// Prints a line on standard error.
    pub fn error(self, text: impl AsRef<str>) {
        self.to_stderr(text.as_ref(), "91");
    }

    /// Prints a warning on standard error.
    pub fn warn(self, text: impl AsRef<str>) {
        self.to_stderr(text.as_ref(), "93");
    }

    fn to_stderr(self, text: &str, code: &str) {
        let line = if self.color { format!("\x1b[{code}m{text}\x1b[0m\n") } else { format!("{text}\n") };
        self.raw_error(line.as_bytes());
    }

    /// Writes bytes to standard output as they are, at once.
    pub fn raw(self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        // A closed pipe: the reader has seen enough.
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    /// Writes bytes to standard error as they are.
    pub fn raw_error(self, bytes: &[u8]) {
        let _ = io::stderr().lock().write_all(bytes);
    }

    /// The text in a style, if colours are on.
    pub fn paint(self, style: Style, text: &str) -> String {
        if self.color { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text.to_owned() }
    }

    /// An empty line and a heading.
    pub fn heading(self, text: &str) {
        self.line("");
        self.line(self.paint(Style::Bold, text));
    }

    /// Asks, and reads one line.
    ///
    /// # Errors
    /// When standard input ends first.
    pub fn ask(self, question: &str) -> Result<String, String> {
        self.raw(format!("{question} ").as_bytes());
        let mut line = String::new();
        match io::stdin().read_line(&mut line) {
            Ok(0) => Err("Failed to parse answer: EOF".to_owned()),
            Ok(_) => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
            Err(why) => Err(format!("Failed to parse answer: {why}")),
        }
    }

    /// Everything that standard input gives.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_stdin(self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        io::stdin().read_to_end(&mut all)?;
        Ok(all)
    }
}

/// Rows with aligned columns; empty cells show `<none>`.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    empty: &'static str,
}

impl Table {
    /// A table with these column names.
    pub fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|&name| name.to_owned()).collect()], empty: NONE }
    }

    /// A table that leaves empty cells blank.
    pub fn blank(header: &[&str]) -> Self {
        Self { empty: "", ..Self::new(header) }
    }

    /// Adds a row.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(|cell| cell.into().trim().to_owned()).collect());
    }

    /// True without any row below the header.
    pub fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }

    /// The lines, without a newline at the end. The last column is not padded.
    pub fn render(&self) -> String {
        let shown = |cell: &String| if cell.is_empty() { self.empty.to_owned() } else { cell.clone() };
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(shown).collect()).collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|at| {
                rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut lines = Vec::new();
        for row in &rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if at + 1 < row.len() {
                    line.push_str(&" ".repeat(widths[at] - cell.chars().count()));
                    line.push_str(COLUMN_GAP);
                }
            }
            lines.push(line);
        }
        lines.join("\n")
    }
}

/// `Key = Value` lines with aligned keys.
#[derive(Clone, Debug, Default)]
pub struct Pairs(Vec<(String, String)>);

impl Pairs {
    /// No lines yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line; an empty value shows `<none>`.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.0.push((key.into(), value.into()));
        self
    }

    /// The lines, without a newline at the end.
    pub fn render(&self) -> String {
        let width = self.0.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
        let line = |(key, value): &(String, String)| {
            let value = if value.is_empty() { NONE } else { value };
            format!("{key}{} = {value}", " ".repeat(width - key.chars().count()))
        };
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_all_but_the_last_column() {
        let mut table = Table::new(&["ID", "Class", "Status"]);
        table.row(["9e8f7a6b", "", "ready"]);
        assert_eq!(table.render(), "ID        Class   Status\n9e8f7a6b  <none>  ready");
        let mut table = Table::blank(&["CPU", "Addresses"]);
        table.row(["500 MHz", ""]);
        assert_eq!(table.render(), "CPU      Addresses\n500 MHz  ");
    }

    #[test]
    fn pairs_align_their_keys() {
        let mut pairs = Pairs::new();
        pairs.add("ID", "x").add("Node Pool", "");
        assert_eq!(pairs.render(), "ID        = x\nNode Pool = <none>");
    }
}

//! Tables for people: columns that line up, no lines between them, so that `grep` and `awk` work on them too.
//!
//! Every cell is cleaned of control characters on its way in.

use comfy_table::{
    Attribute, Cell as Rendered, CellAlignment, Color, ColumnConstraint, ContentArrangement, Row,
    Table as Grid, Width, presets,
};

use super::text;

/// Blank columns between two columns.
const GAP: u16 = 2;

/// Room that a last column needs on a terminal to be worth reading.
const LAST_COLUMN_MIN: u16 = 24;

/// Room that the value of a field keeps on a terminal: an id stays whole.
const VALUE_MIN: u16 = 36 + GAP;

/// What a colour is to say; nothing depends on seeing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Went well.
    Good,
    /// Went wrong.
    Bad,
    /// Needs someone's eye.
    Warning,
    /// Under way.
    Busy,
    /// Of less interest.
    Quiet,
}

/// One cell.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Cell {
    /// A cell with a colour.
    pub fn toned(text: impl AsRef<str>, tone: Option<Tone>) -> Self {
        Self { text: text::clean(text.as_ref()).into_owned(), tone }
    }

    fn render(self) -> Rendered {
        let cell = Rendered::new(&self.text);
        if self.text.is_empty() {
            return cell;
        }
        match self.tone {
            None => cell,
            Some(Tone::Good) => cell.fg(Color::Green),
            Some(Tone::Bad) => cell.fg(Color::Red),
            Some(Tone::Warning) => cell.fg(Color::Yellow),
            Some(Tone::Busy) => cell.fg(Color::Cyan),
            Some(Tone::Quiet) => cell.add_attribute(Attribute::Dim),
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, None)
    }
}

/// What happens to a table that is wider than the terminal. Away from terminals, nothing is ever cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The last column goes on in the next line.
    Wrap,
    /// Columns that do not fit are left out from the right, and the last one is cut: one line for each row.
    Cut,
}

/// A table that may come in several pages, whose columns keep their place from page to page.
pub struct Table {
    header: Option<&'static [&'static str]>,
    overflow: Overflow,
    widths: Vec<u16>,
}

impl Table {
    /// A table with these columns.
    pub fn new(header: &'static [&'static str], overflow: Overflow) -> Self {
        Self { header: Some(header), overflow, widths: vec![0; header.len()] }
    }

    /// A table of so many columns that need no names.
    pub fn unnamed(columns: usize, overflow: Overflow) -> Self {
        Self { header: None, overflow, widths: vec![0; columns] }
    }

    /// The next rows as text, under the header if they are the first.
    pub fn page(&mut self, rows: impl IntoIterator<Item = Vec<Cell>>) -> String {
        let mut grid = Grid::new();
        grid.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        // Colours are always written; the console takes them out where they are not wanted.
        grid.enforce_styling().style_text_only();
        if let Some(header) = self.header.take() {
            grid.set_header(header.iter().map(|name| Rendered::new(name).add_attribute(Attribute::Bold)));
        }
        for row in rows {
            let mut row: Row = row.into_iter().map(Cell::render).collect::<Vec<_>>().into();
            if self.overflow == Overflow::Cut {
                row.max_height(1);
            }
            grid.add_row(row);
        }
        let terminal = grid.width();
        self.arrange(&mut grid, terminal);
        grid.trim_fmt() + "\n"
    }

    /// Every column but the last is as wide as its widest cell so far, and never wrapped: ids stay whole.
    fn arrange(&mut self, grid: &mut Grid, terminal: Option<u16>) {
        let content = grid.column_max_content_widths();
        for (width, content) in self.widths.iter_mut().zip(content) {
            *width = content.saturating_add(GAP).max(*width);
        }
        let last = self.widths.len().saturating_sub(1);
        let room = terminal.unwrap_or(u16::MAX);
        let mut used = 0_u16;
        for (index, column) in grid.column_iter_mut().enumerate() {
            column.set_padding((0, GAP)).set_cell_alignment(CellAlignment::Left);
            let needs =
                if index == last { self.widths[last].min(LAST_COLUMN_MIN) } else { self.widths[index] };
            used = used.saturating_add(needs);
            if index > 0 && used > room && self.overflow == Overflow::Cut {
                column.set_constraint(ColumnConstraint::Hidden);
            } else if index < last {
                column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(needs)));
            }
        }
        // Where wrapping would leave a last column of single letters, the terminal may wrap instead.
        if let Some(terminal) = terminal {
            grid.set_width(if self.overflow == Overflow::Wrap { terminal.max(used) } else { terminal });
        }
    }
}

/// Names and values, one pair a line; pairs with an empty value are left out.
pub fn fields<'a>(pairs: impl IntoIterator<Item = (&'a str, Cell)>) -> String {
    let mut grid = Grid::new();
    grid.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    grid.enforce_styling().style_text_only();
    let mut width = 0;
    for (name, value) in pairs {
        if !value.text.is_empty() {
            width = width.max(name.len() as u16);
            grid.add_row(vec![Rendered::new(name).add_attribute(Attribute::Bold), value.render()]);
        }
    }
    let name_width = width.saturating_add(GAP);
    for (index, column) in grid.column_iter_mut().enumerate() {
        column.set_padding((0, GAP));
        if index == 0 {
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(name_width)));
        }
    }
    if let Some(terminal) = grid.width() {
        grid.set_width(terminal.max(name_width.saturating_add(VALUE_MIN)));
    }
    grid.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_keep_their_place_from_page_to_page() {
        let mut table = Table::new(&["A", "B"], Overflow::Cut);
        let first = table.page([vec!["longest".into(), "x".into()]]);
        let second = table.page([vec!["s".into(), "y".into()]]);
        assert_eq!(plain(&first), "A        B\nlongest  x\n");
        assert_eq!(plain(&second), "s        y\n");
    }

    fn lines_on(terminal: u16, overflow: Overflow) -> Vec<String> {
        let mut grid = Grid::new();
        grid.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        let mut row: Row =
            ["an id of sixteen", "status", "a long story that takes many words to tell"].into();
        if overflow == Overflow::Cut {
            row.max_height(1);
        }
        grid.add_row(row);
        Table::new(&["", "", ""], overflow).arrange(&mut grid, Some(terminal));
        grid.trim_fmt().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_narrow_terminal_shows_fewer_columns_of_a_list() {
        let wide = lines_on(60, Overflow::Cut);
        assert_eq!(wide.len(), 1, "{wide:?}");
        assert!(wide[0].starts_with("an id of sixteen  status  a long story"), "{wide:?}");
        assert_eq!(lines_on(40, Overflow::Cut), ["an id of sixteen  status"]);
        assert_eq!(lines_on(20, Overflow::Cut), ["an id of sixteen"]);
        assert_eq!(lines_on(1, Overflow::Cut).len(), 1);
    }

    #[test]
    fn a_last_column_that_wraps_keeps_room_for_words() {
        let lines = lines_on(30, Overflow::Wrap);
        assert_eq!(lines[0], "an id of sixteen  status  a long story that");
        assert!(lines[1].ends_with("takes many words to"), "{lines:?}");
    }

    #[test]
    fn a_cell_cannot_hold_a_command_to_the_terminal() {
        let text = fields([("Name", Cell::from("a\u{1b}[2Jb\nc"))]);
        assert_eq!(plain(&text), "Name  a[2Jb c\n");
        assert!(!text.contains("\u{1b}[2J"));
    }

    #[test]
    fn a_field_without_value_is_left_out() {
        assert_eq!(plain(&fields([("One", "1".into()), ("Two", "".into())])), "One  1\n");
    }
}

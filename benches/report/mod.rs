//! How measurements are shown: tables for people, one JSON object for programs, and a line of progress on stderr.

use std::io::{IsTerminal, Write as _};

use serde_json::{Map, Value, json};

/// One part or scenario, with everything that was measured of it.
pub struct Table {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// What one figure contains, and what it does not.
    pub about: &'static str,
    /// Names of the figures, with their units.
    pub columns: &'static [&'static str],
    rows: Vec<(String, Vec<Cell>)>,
}

/// One figure.
pub enum Cell {
    /// A number, shown with so many decimals.
    Number(f64, usize),
    /// Words.
    Text(String),
}

impl Table {
    /// A table without rows.
    pub fn new(name: &'static str, about: &'static str, columns: &'static [&'static str]) -> Self {
        Self { name, about, columns, rows: Vec::new() }
    }

    /// Adds what was measured in one case.
    pub fn row(&mut self, case: impl Into<String>, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push((case.into(), cells.into_iter().collect()));
    }

    fn print(&self) {
        println!("\n{}", self.name);
        for line in self.about.lines() {
            println!("  {line}");
        }
        let texts: Vec<Vec<String>> =
            self.rows.iter().map(|(_, cells)| cells.iter().map(Cell::text).collect()).collect();
        let case_width = self.rows.iter().map(|(case, _)| case.chars().count()).max().unwrap_or(0);
        let width = |column: usize| {
            let texts = texts.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count());
            texts.chain([self.columns[column].chars().count()]).max().unwrap_or(0)
        };
        print!("\n  {:case_width$}", "");
        for (column, name) in self.columns.iter().enumerate() {
            print!("  {name:>width$}", width = width(column));
        }
        println!();
        for ((case, _), texts) in self.rows.iter().zip(&texts) {
            print!("  {case:case_width$}");
            for (column, text) in texts.iter().enumerate() {
                print!("  {text:>width$}", width = width(column));
            }
            println!();
        }
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|(case, cells)| {
            let figures = self.columns.iter().zip(cells).map(|(name, cell)| (name.to_string(), cell.json()));
            Value::Object(
                [("case".to_owned(), json!(case))].into_iter().chain(figures).collect::<Map<_, _>>(),
            )
        });
        json!({ "name": self.name, "about": self.about, "rows": rows.collect::<Vec<_>>() })
    }
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Cell::Number(number, decimals) => with_separators(&format!("{number:.decimals$}")),
            Cell::Text(text) => text.clone(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Cell::Number(number, decimals) => {
                let scale = 10_f64.powi(*decimals as i32);
                json!((number * scale).round() / scale)
            }
            Cell::Text(text) => json!(text),
        }
    }
}

/// `1234567.8` as `1,234,567.8`.
fn with_separators(number: &str) -> String {
    let (whole, fraction) =
        number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let mut text = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    fraction.map_or(text.clone(), |fraction| format!("{text}.{fraction}"))
}

/// Prints all tables, or the one object that programs read.
pub fn print(bench: &str, tables: &[Table], as_json: bool) {
    clear_progress();
    if as_json {
        let tables: Vec<Value> = tables.iter().map(Table::json).collect();
        println!("{}", json!({ "bench": bench, "machine": machine(), "tables": tables }));
    } else {
        println!("{bench}: {}", machine());
        tables.iter().for_each(Table::print);
    }
}

/// The processor and how much of it there is: figures mean little without.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!("{cores} cores, {}", model.map_or("unknown processor", |(_, name)| name.trim()))
}

/// Says what is being done: on a terminal in one line that is written over, elsewhere one line each.
pub fn progress(doing: &str) {
    let mut stderr = std::io::stderr();
    // Whether anybody reads the progress is of no matter to the measurement.
    let _ = match stderr.is_terminal() {
        true => write!(stderr, "\r\x1b[2K{doing} …"),
        false => writeln!(stderr, "{doing} …"),
    };
}

fn clear_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[2K");
    }
}

/// The value in the middle.
pub fn median(values: &[f64]) -> f64 {
    percentile(&mut values.to_vec(), 0.5)
}

/// The value below which this share of all values lies.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len => values[((len - 1) as f64 * share).round() as usize],
    }
}

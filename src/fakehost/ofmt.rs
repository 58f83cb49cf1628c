//! Tables of dladm(8) and ipadm(8) (libofmt): human-readable, or with `:` between the requested fields.

use super::exit;
use super::run::{Run, Step};

/// A table: its columns, in lower case, and its rows.
pub struct Table<'a> {
    /// All columns.
    pub columns: &'a [&'a str],
    /// The default columns.
    pub usual: &'a [&'a str],
    /// A value for each of `columns`.
    pub rows: Vec<Vec<String>>,
}

/// Prints a table; `parsable` is `-p` (or `-c`), `fields` is `-o`.
pub fn print(
    run: &mut Run,
    tool: &str,
    table: &Table,
    parsable: bool,
    fields: Option<&str>,
) -> Step<i32> {
    let wanted: Vec<String> = match fields {
        None if parsable => {
            let text = format!("{tool}: output fields must be specified in parsable mode");
            return run.end(exit::ERROR, &text);
        }
        Some(all) if all.eq_ignore_ascii_case("all") && parsable => {
            let text = format!("{tool}: output field `all' invalid in parsable mode");
            return run.end(exit::ERROR, &text);
        }
        None => table.usual.iter().map(|c| (*c).to_owned()).collect(),
        Some(all) if all.eq_ignore_ascii_case("all") => {
            table.columns.iter().map(|c| (*c).to_owned()).collect()
        }
        Some(list) => list.split(',').map(str::to_ascii_lowercase).collect(),
    };
    let place = |field: &String| table.columns.iter().position(|c| c == field);
    let places: Vec<usize> = wanted.iter().filter_map(place).collect();
    let unknown: Vec<String> = wanted
        .iter()
        .filter(|field| place(field).is_none())
        .map(|field| format!(" `{field}'"))
        .collect();
    if !unknown.is_empty() {
        let plural = if unknown.len() > 1 { "s" } else { "" };
        let names = unknown.concat();
        if parsable {
            let text = format!("{tool}: unknown output field{plural}:{names}");
            return run.end(exit::ERROR, &text);
        }
        if places.is_empty() {
            return run.end(exit::ERROR, &format!("{tool}: no valid output fields"));
        }
        run.complain(&format!(
            "{tool}: warning: ignoring unknown output field{plural}:{names}"
        ));
    }
    if !parsable {
        let header: Vec<String> = places
            .iter()
            .map(|p| format!("{:<12}", table.columns[*p].to_ascii_uppercase()))
            .collect();
        run.say(header.concat().trim_end());
    }
    for row in &table.rows {
        let line = match (parsable, places.as_slice()) {
            // A single field is printed without escapes.
            (true, [one]) => row[*one].clone(),
            (true, places) => {
                let cells: Vec<String> = places
                    .iter()
                    .map(|p| row[*p].replace('\\', "\\\\").replace(':', "\\:"))
                    .collect();
                cells.join(":")
            }
            (false, places) => {
                let cells: Vec<String> = places
                    .iter()
                    .map(|p| match row[*p].as_str() {
                        "" => format!("{:<12}", "--"),
                        text => format!("{text:<12}"),
                    })
                    .collect();
                cells.concat().trim_end().to_owned()
            }
        };
        run.say(&line);
    }
    Ok(exit::OK)
}

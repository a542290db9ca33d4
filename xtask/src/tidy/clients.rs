//! The table of clients in `docs/tls.md` is `tests/clients.toml`.

use std::{fs, path::Path};

use toml::{Table, Value};

use super::{Finding, line_of};
use crate::sources::Sources;

const FILE: &str = "tests/clients.toml";
const PAGE: &str = "docs/tls.md";
const BEGIN: &str = "<!-- clients: written by `cargo xtask clients` from tests/clients.toml -->\n";
const END: &str = "<!-- clients: end -->";

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    if !sources.has(FILE) || !sources.has(PAGE) {
        return vec![Finding::error(FILE, 1, format!("{FILE} and {PAGE} belong together; one is missing"))];
    }
    let read = |file| sources.text(file).map_err(|e| Finding::error(file, 1, e.to_string()));
    let compared = read(FILE).and_then(|rows| {
        let page = read(PAGE)?;
        let new = replaced(&page, &rows).map_err(|e| Finding::error(FILE, 1, e))?;
        let stale = || Finding::error(PAGE, line_of(&page, BEGIN.trim_end()), "not as its file: cargo xtask clients");
        if new == page { Ok(()) } else { Err(stale()) }
    });
    compared.err().into_iter().collect()
}

pub(super) fn write(root: &Path) -> Result<(), String> {
    let read = |file: &str| fs::read_to_string(root.join(file)).map_err(|e| format!("{file}: {e}"));
    let new = replaced(&read(PAGE)?, &read(FILE)?)?;
    fs::write(root.join(PAGE), new).map_err(|e| format!("{PAGE}: {e}"))
}

/// The page with the table of `rows` between its marks.
fn replaced(page: &str, rows: &str) -> Result<String, String> {
    let (before, rest) = page.split_once(BEGIN).ok_or(format!("{PAGE}: no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).ok_or(format!("{PAGE}: no line {END}"))?;
    Ok(format!("{before}{BEGIN}{}{END}{after}", table(rows)?))
}

fn table(rows: &str) -> Result<String, String> {
    let file: Table = rows.parse().map_err(|e| format!("not TOML: {e}"))?;
    let rows = file.get("client").and_then(Value::as_array).ok_or("no [[client]]")?;
    let mut text = "\n| client | goes by | the test has it from |\n|---|---|---|\n".to_owned();
    for row in rows {
        let word = |key: &str| row.get(key).and_then(Value::as_str);
        let name = word("name").ok_or("a client without a name")?;
        let told = row.get("told").and_then(Value::as_array).ok_or(format!("{name}: no `told`"))?;
        let told: Vec<String> = told.iter().filter_map(Value::as_str).map(|v| format!("`{v}`")).collect();
        let place = match (word("run"), word("skip")) {
            (Some(_), None) => word("from").ok_or(format!("{name}: no `from`"))?.to_owned(),
            (None, Some(why)) => format!("not tested: {why}"),
            _ => return Err(format!("{name}: one of `run` and `skip`")),
        };
        text += &format!("| {name} | {} | {place} |\n", told.join(", "));
    }
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = "[[client]]\nname = 'a'\ntold = ['X', 'Y']\nfrom = 'pip'\nrun = 'a $URL'\n\
                        [[client]]\nname = 'b'\ntold = ['Z']\nfrom = 'vendor'\nskip = 'none'\n";

    #[test]
    fn the_table_stands_between_its_marks() {
        let page = format!("before\n{BEGIN}old{END}\nafter\n");
        let new = replaced(&page, ROWS).unwrap();
        assert!(new.contains("| a | `X`, `Y` | pip |\n| b | `Z` | not tested: none |\n"), "{new}");
        assert!(new.starts_with("before\n") && new.ends_with("after\n") && !new.contains("old"));
        assert_eq!(replaced(&new, ROWS).unwrap(), new);
    }

    #[test]
    fn a_row_that_says_both_or_neither_is_an_error() {
        let both = format!("{ROWS}run = 'x'\n");
        assert_eq!(table(&both).unwrap_err(), "b: one of `run` and `skip`");
        assert!(replaced("no marks", ROWS).is_err() && table("x = 1").is_err());
    }
}

//! The table of columns in docs/history.md is made from the code.

use std::{fmt::Write as _, fs, path::Path};

use super::all;

const BEGIN: &str = "<!-- columns: made by `UPDATE_DOCS=1 cargo test -p history` -->\n";
const END: &str = "<!-- columns end -->\n";

#[test]
fn the_documentation_names_every_column() {
    let mut table = String::from("| column | type in DuckDB | what |\n|---|---|---|\n");
    for column in all() {
        let _ = writeln!(table, "| `{}` | `{}` | {} |", column.name, column.kind.name(), column.about);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/history.md");
    let text = fs::read_to_string(&path).unwrap();
    let (front, rest) = text.split_once(BEGIN).unwrap();
    let (found, behind) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{front}{BEGIN}{table}{END}{behind}")).unwrap();
    } else {
        assert_eq!(found, table, "run `UPDATE_DOCS=1 cargo test -p history`");
    }
}

//! Text files in `testdata/` that tests compare with. `UPDATE_GOLDEN=1 cargo test -p cni-plugin` writes
//! them anew; read the difference before committing it.

use std::{fs, path::PathBuf};

/// A file of test data.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// Fails where the file does not hold `actual`.
pub(crate) fn check(name: &str, actual: &str) {
    let path = path(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(actual.lines()).position(|(e, a)| e != a);
    let line = differs.unwrap_or_else(|| expected.lines().count().min(actual.lines().count()));
    assert!(
        expected == actual,
        "testdata/{name} line {}:\n  file: {}\n  now:  {}\nUPDATE_GOLDEN=1 rewrites it",
        line + 1,
        expected.lines().nth(line).unwrap_or("(end)"),
        actual.lines().nth(line).unwrap_or("(end)"),
    );
}

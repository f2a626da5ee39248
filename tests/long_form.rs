//! The tables of tests/README.md and tests/long say what there is: each T has its tests, each guarantee too.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::support::daemon::tool;

fn text(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)).unwrap()
}

/// First cells of a table's rows that are a letter and a number.
fn rows(letter: char) -> BTreeSet<String> {
    let readme = text("README.md");
    let cells = readme.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |")).map(|(cell, _)| cell);
    let named = cells.filter(|cell| cell.strip_prefix(letter).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())));
    named.map(str::to_lowercase).collect()
}

/// `t1`, `g4` and the like that begin the names of this binary's tests.
fn prefixes() -> BTreeSet<String> {
    let list = tool(Command::new(std::env::current_exe().unwrap()).args(["--list", "--format", "terse"]));
    let tests = list.lines().filter_map(|line| line.strip_suffix(": test")).filter_map(|name| name.rsplit("::").next());
    let word = |word: &&str| word.len() > 1 && matches!(word.as_bytes()[0], b't' | b'g') && word[1..].bytes().all(|b| b.is_ascii_digit());
    tests.flat_map(|name| name.split('_').take_while(word).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn every_t_and_every_guarantee_of_the_tables_has_a_test_of_its_name_and_no_test_names_another() {
    let (ts, gs) = (rows('T'), rows('G'));
    assert_eq!(gs.len(), 10, "{gs:?}");
    let named: BTreeSet<String> = ts.union(&gs).cloned().collect();
    assert_eq!(prefixes(), named);
}

#[test]
fn the_long_form_runs_every_t_of_the_table() {
    let script = text("long");
    let rows = ["ROW_ONE", "ROW_TWO", "ALONE"].map(|row| {
        let list = script.split_once(&format!("readonly {row}=(")).unwrap_or_else(|| panic!("{row}")).1;
        list.split_once(')').unwrap().0.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>()
    });
    let mut run = rows.concat();
    // The second half of T10.
    assert!(run.contains(&"fuzz".to_owned()), "{run:?}");
    run.retain(|t| t != "fuzz");
    assert_eq!(run.len(), run.iter().collect::<BTreeSet<_>>().len(), "one stands in two rows: {run:?}");
    assert_eq!(run.into_iter().collect::<BTreeSet<_>>(), self::rows('T'));
}

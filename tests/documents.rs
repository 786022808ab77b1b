//! What the documents name is there.

use std::{collections::BTreeSet, fs, path::Path};

use roost::store::redis::acl_rules;

/// Rows of the table, each of which has a list of what proves it.
const ROWS: usize = 10;

#[test]
fn every_row_beside_others_has_tests_that_are_there() {
    let readme = read("README.md").expect("a README");
    let section = readme.split("\n## ").find(|section| section.starts_with("Beside others"));
    let (table, rest) = section
        .and_then(|section| section.split_once("\n### What proves it\n"))
        .expect("a table, and what proves it");
    let (proofs, _) = rest.split_once("\n### ").expect("another heading");
    let rows: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| **")).collect();
    let rows: Vec<&str> = rows.iter().filter_map(|row| Some(row.split_once("**")?.0)).collect();
    assert_eq!(rows.len(), ROWS);
    let mut wrong = Vec::new();
    for (row, title) in rows.iter().enumerate() {
        let (number, name) = title.split_once(". ").expect("a number and a name");
        assert_eq!(number, (row + 1).to_string());
        let claims = claims_of(proofs, &format!("{number}. **{name}**"));
        assert!(!claims.is_empty(), "nothing proves {title:?}");
        let unproven = claims.iter().filter(|claim| tests_of(claim).is_empty());
        wrong.extend(unproven.map(|claim| format!("no test: {claim}")));
    }
    let named: BTreeSet<&str> = tests_of(proofs).into_iter().collect();
    wrong.extend(named.into_iter().filter_map(problem));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_test_that_is_not_there_is_noticed() {
    for (name, expected) in [
        ("tests/documents.rs::a_test_that_is_not_there_is_noticed", None),
        ("tests/store/homes.rs::a_timeline_is_paged", None),
        ("src/home_stream/position.rs::each_post_is_sent_once_or_said_to_be_missed", None),
        ("tests/documents.rs::a_test_that_is_not", Some("there is no such function")),
        ("tests/documents.rs::problem", Some("it is no test that runs")),
        ("tests/no_documents.rs::a_test", Some("there is no such file")),
    ] {
        let told = expected.map(|expected| format!("{name}: {expected}"));
        assert_eq!(problem(name), told);
    }
}

/// The suites run as a user with these rules, so that what the README shows is enough.
#[test]
fn readme_shows_the_rules_that_suites_run_with() {
    let line = format!("ACL SETUSER roost reset on >PASSWORD {}\n", acl_rules());
    assert!(read("README.md").expect("a README").contains(&line), "it should show:\n{line}");
}

/// The items below a heading of a list, each with the lines that it goes on in.
fn claims_of(proofs: &str, heading: &str) -> Vec<String> {
    let lines = proofs.lines().skip_while(|line| *line != heading).skip(1);
    let mut claims: Vec<String> = Vec::new();
    for line in lines.take_while(|line| line.starts_with("  ")) {
        match line.trim().strip_prefix("- ") {
            Some(claim) => claims.push(claim.to_owned()),
            None => claims.last_mut().expect("an item first").push_str(line.trim()),
        }
    }
    claims
}

/// What stands in backticks as a file of Rust and a name in it.
fn tests_of(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).filter(|code| code.contains(".rs::")).collect()
}

/// What is wrong with a test that is named.
fn problem(test: &str) -> Option<String> {
    let (file, name) = test.split_once("::")?;
    let reason = match read(file) {
        None => "there is no such file",
        Some(code) => match line_of(&code, name) {
            None => "there is no such function",
            Some(line) if !is_run(&code, line, name) => "it is no test that runs",
            Some(_) => return None,
        },
    };
    Some(format!("{test}: {reason}"))
}

fn line_of(code: &str, name: &str) -> Option<usize> {
    let declared = format!("fn {name}(");
    code.lines().position(|line| line.trim_start_matches(' ').contains(&declared))
}

/// Whether what is declared there has the mark of a test, or is listed as a behaviour.
fn is_run(code: &str, line: usize, name: &str) -> bool {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let above = lines[..line].iter().rev();
    let marks: Vec<&&str> = above.take_while(|line| line.starts_with(['#', '/'])).collect();
    let has = |mark: &str| marks.iter().any(|line| line.starts_with(mark));
    (has("#[test]") || has("#[tokio::test") || lines.contains(&name)) && !has("#[ignore")
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

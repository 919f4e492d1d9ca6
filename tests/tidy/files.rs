//! The text files of the project, the places in them that break a rule, and the exceptions from rules.

use super::lexer::{Keep, stripped, without_tests};
use std::fmt;
use std::fs;
use std::path::Path;

/// A text file, with its path relative to the root.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path));
        let text =
            text.unwrap_or_else(|error| panic!("{path}: {error}: a rule names this file, so it must exist"));
        Self { path: path.to_owned(), text }
    }

    /// The code that users build: without comments, strings and unit tests.
    pub(crate) fn code(&self) -> String {
        without_tests(stripped(&self.text, Keep::Code))
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, text)| (index + 1, text))
    }

    pub(crate) fn finding(&self, line: usize, what: &str, right: &str) -> Finding {
        Finding { path: self.path.clone(), line, what: what.to_owned(), right: right.to_owned() }
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn rust_files(places: &[&str]) -> Vec<File> {
    text_files(places).into_iter().filter(|it| it.path.ends_with(".rs")).collect()
}

/// All text files at or below these places, in order. A place that does not exist holds none.
pub(crate) fn text_files(places: &[&str]) -> Vec<File> {
    let mut files = Vec::new();
    for place in places {
        collect(place, &mut files);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn collect(path: &str, files: &mut Vec<File>) {
    // Folders of built and fetched files, and of git, hold no text of the project.
    let name = path.rsplit('/').next().unwrap_or(path);
    if ["target", "node_modules", ".git"].contains(&name) {
        return;
    }
    let full = root().join(path);
    // A symbolic link is not followed: its target is read at its own place, or is outside the project.
    let Ok(metadata) = full.symlink_metadata() else { return };
    if metadata.is_dir() {
        for entry in fs::read_dir(&full).unwrap_or_else(|error| panic!("{path}: {error}")) {
            let entry = entry.unwrap_or_else(|error| panic!("{path}: {error}"));
            collect(
                format!("{path}/{}", entry.file_name().to_string_lossy()).trim_start_matches("./"),
                files,
            );
        }
    } else if metadata.is_file()
        && let Ok(text) = fs::read_to_string(&full)
    {
        files.push(File { path: path.to_owned(), text });
    }
}

/// A place that breaks a rule.
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
    pub(crate) right: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: `{}`: {}", self.path, self.line, self.what, self.right)
    }
}

/// An exception from a rule, for one file, with its reason.
pub(crate) struct Allowance {
    pub(crate) file: &'static str,
    pub(crate) what: &'static str,
    pub(crate) reason: &'static str,
}

pub(crate) fn verdict(found: Vec<Finding>, allowed: &[Allowance]) {
    let objections = objections(found, allowed);
    assert!(objections.is_empty(), "\n\n{}\n", objections.join("\n"));
}

pub(crate) fn objections(found: Vec<Finding>, allowed: &[Allowance]) -> Vec<String> {
    let covers = |it: &Allowance, finding: &Finding| it.file == finding.path && it.what == finding.what;
    let forbidden = found.iter().filter(|finding| !allowed.iter().any(|it| covers(it, finding)));
    let unused = allowed.iter().filter(|it| !found.iter().any(|finding| covers(it, finding)));
    let unused = unused.map(|it| {
        format!("{}: `{}` is allowed ({}) and not done: delete the allowance", it.file, it.what, it.reason)
    });
    forbidden.map(Finding::to_string).chain(unused).collect()
}

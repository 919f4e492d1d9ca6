//! Rules about the code, as tests of the code: which file may name what, where things live, what the map says.
//!
//! The compiler keeps the order between crates; these tests keep it inside them. They read source text and nothing else,
//! so they are quick, and each failure says which file and line, and what would be right. An exception is an
//! [`Allowance`] with a reason, and one that is no longer needed fails as well.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

/// Where the source of the project is.
const SOURCES: [&str; 6] = ["wire/src", "actors/src", "src", "cli/src", "macros/src", "xtask/src"];

/// Where the integration tests are.
const TESTS: [&str; 5] = ["tests", "cli/tests", "wire/tests", "actors/tests", "macros/tests"];

/// The files that decide and leave sending, receiving and waiting to the actors beside them. All of `wire/src` is added.
const PURE_HALVES: [&str; 5] = [
    "actors/src/master/registry/table.rs",
    "actors/src/events/trie.rs",
    "actors/src/calls/table.rs",
    "actors/src/master/session/state.rs",
    "actors/src/node/known.rs",
];

/// The one file that knows which codecs there are.
const CODECS: &str = "wire/src/value.rs";

/// Each file in here is the codec of another protocol.
const DIALECTS: &str = "wire/src/dialect/";

/// Names that say nothing about what is inside, so that everything ends up there.
const ROOMS_WITHOUT_AN_OWNER: [&str; 6] = ["common", "utils", "types", "helpers", "messages", "errors"];

/// Tests that import more of our crates than `meshwork`.
const IMPORTS_ALLOWED: &[Allowance] = &[
    Allowance {
        file: "tests/allocation.rs",
        what: "meshwork_wire",
        reason: "both ends of its relay speak frame by frame, so that only the master's own is counted",
    },
    Allowance {
        file: "tests/mesh/raw.rs",
        what: "meshwork_wire",
        reason: "it speaks frame by frame, as a branch would that keeps to no rules",
    },
];

/// Tests that sleep: paused or simulated time is a reason, waiting for something to have happened is none. And tests
/// that name a port: they fight with whoever else listens there.
const SLEEPS_AND_PORTS_ALLOWED: &[Allowance] = &[];

#[test]
fn the_map_is_true() {
    let sources: Vec<String> = rust_files(&SOURCES).into_iter().map(|it| it.path).collect();
    let map = File::read("ARCHITECTURE.md");
    verdict(off_the_map(&map, &sources, |path| root().join(path).exists()), &[]);
}

#[test]
fn imports_run_one_way() {
    let mut found = Vec::new();
    for file in rust_files(&["wire/src"]) {
        let right =
            "wire/ has no runtime and knows none of our other crates; of tokio it may name tokio_util::codec";
        found.extend(names_a_runtime(&file, right));
        found.extend(names(&file, &["meshwork", "meshwork_actors", "meshwork_macros"], right));
    }
    for file in rust_files(&["actors/src"]) {
        let right =
            "actors/ sees payloads as bytes and never the facade; values are encoded and decoded above it";
        found.extend(names(
            &file,
            &["serde_json", "rmp_serde", "bincode", "meshwork", "meshwork_macros"],
            right,
        ));
        let right =
            "actors/ runs in any actix system, a simulated one too; arbiters are the facade's business";
        let globals = ["System", "Arbiter", "SystemRegistry", "SystemService", "ArbiterService"];
        found.extend(names(&file, &globals, right));
    }
    for file in rust_files(&["cli", "examples", "tests"]) {
        let right = "the command line, examples and tests import what any user could: `meshwork`";
        found.extend(names(&file, &["meshwork_wire", "meshwork_actors", "meshwork_macros"], right));
    }
    for (manifest, may_use) in [
        ("wire/Cargo.toml", &[][..]),
        ("actors/Cargo.toml", &["meshwork-wire"]),
        ("macros/Cargo.toml", &[]),
        ("cli/Cargo.toml", &["meshwork"]),
    ] {
        found.extend(depends_on_ours(&File::read(manifest), may_use));
    }
    verdict(found, IMPORTS_ALLOWED);
}

#[test]
fn pure_halves_are_pure() {
    let mut files = rust_files(&["wire/src"]);
    files.extend(PURE_HALVES.map(File::read));
    verdict(files.iter().flat_map(impure).collect(), &[]);
}

#[test]
fn one_file_names_bincode() {
    let mut found = Vec::new();
    let elsewhere = |path: &str| path != CODECS && !path.starts_with(DIALECTS);
    for file in rust_files(&["wire/src", "actors/src"]).iter().filter(|it| elsewhere(&it.path)) {
        let right = "only wire/src/value.rs and the dialects name codecs; call what they offer";
        found.extend(names(file, &["bincode", "rmp_serde", "serde_json"], right));
    }
    for file in rust_files(&["src", "cli/src"]) {
        let right =
            "go through `Payload`; of the codecs, the facade and the command line may name serde_json";
        found.extend(names(&file, &["bincode", "rmp_serde"], right));
    }
    verdict(found, &[]);
}

#[test]
fn no_room_is_called_common() {
    let everywhere = rust_files(&["."]);
    let mut found: Vec<Finding> = everywhere.iter().flat_map(rooms_without_an_owner).collect();
    let manifests = text_files(&["."]).into_iter().filter(|it| it.path.ends_with("Cargo.toml"));
    found.extend(manifests.flat_map(|it| crate_without_an_owner(&it)));
    verdict(found, &[]);
}

#[test]
fn every_file_says_what_it_is_for() {
    let files = rust_files(&SOURCES).into_iter().chain(rust_files(&["examples"]));
    let silent = files.filter(|it| !it.text.starts_with("//!"));
    let right = "open with two to six lines of `//!`: what this is for, and what it leaves to whom";
    verdict(silent.map(|it| it.finding(1, "no purpose", right)).collect(), &[]);
}

#[test]
fn the_project_stands_alone() {
    verdict(text_files(&["."]).iter().flat_map(points_outside).collect(), &[]);
}

#[test]
fn no_sleeps_and_no_chosen_ports_in_tests() {
    let mut found = Vec::new();
    for file in rust_files(&TESTS) {
        let right = "wait for the event itself, or run in paused or simulated time";
        found.extend(names(&file, &["sleep", "sleep_until"], right));
        found.extend(chosen_ports(&file));
    }
    verdict(found, SLEEPS_AND_PORTS_ALLOWED);
}

/// The rules themselves are tried on text that breaks them, since a rule that finds nothing looks like one that is kept.
#[test]
fn each_rule_finds_what_it_forbids_and_nothing_else() {
    let file = |text: &str| File { path: "wire/src/id.rs".into(), text: text.into() };
    let whats = |found: Vec<Finding>| {
        found.into_iter().map(|it| format!("{} {}", it.line, it.what)).collect::<Vec<_>>()
    };

    let code = file(
        "// tokio\n/* /* tokio */ */ let a = \"tokio\\\"\"; let b = r#\"tokio\"#;\nuse tokio::net;\ntokio_x;",
    );
    assert_eq!(whats(names(&code, &["tokio"], "")), ["3 tokio"]);
    let code = file("fn f<'a>(c: &'a char) { c == '\"' || c == '\\'' } use actix::Addr; // \"");
    assert_eq!(whats(names_a_runtime(&code, "")), ["1 actix"]);
    let code = file("use tokio_util::codec::Decoder;\nuse tokio_util::sync::CancellationToken;");
    assert_eq!(whats(names_a_runtime(&code, "")), ["2 tokio_util"]);
    let code =
        file("now();\n#[cfg(test)]\nmod tests {\n  fn t() { Instant::now(); }\n}\nlet t = Instant::now();");
    assert_eq!(whats(impure(&code)), ["6 Instant::now"]);

    let manifest = file(
        "[dependencies]\nmeshwork-wire.workspace = true\nmeshwork = \"1\" # Wrong.\n[dev-dependencies]\nmeshwork = \"1\"",
    );
    assert_eq!(whats(depends_on_ours(&manifest, &["meshwork-wire"])), ["3 meshwork"]);
    assert_eq!(whats(crate_without_an_owner(&file("[package]\nname = \"meshwork-utils\""))), ["2 utils"]);
    assert_eq!(whats(rooms_without_an_owner(&file("use a::types;\nmod types {}"))), ["2 types"]);
    let room = File { path: "src/common/id.rs".into(), text: String::new() };
    assert_eq!(whats(rooms_without_an_owner(&room)), ["1 common"]);

    let map = file("`src/a.rs` `x/` `b.rs` `Type`\n```text\n`src/c.rs`\n```\nand `old.md`");
    let found = off_the_map(&map, &["src/a.rs".into(), "src/d.rs".into()], |path| path == "src/a.rs");
    assert_eq!(whats(found), ["1 x/", "5 old.md", "1 src/d.rs"]);

    let ports = format!("bind(\"{0}0\");\n// {0}80\nbind(\"{0}80\");", "127.0.0.1:");
    assert_eq!(whats(chosen_ports(&file(&ports))), [format!("3 {}80", "127.0.0.1:")]);
    let outside = format!("fine\nsee {}", [".lib", "rary/x"].concat());
    assert_eq!(points_outside(&file(&outside)).len(), 1);

    let allowed = |what: &'static str| Allowance { file: "wire/src/id.rs", what, reason: "it is a test" };
    let found = || vec![file("").finding(1, "tokio", "")];
    assert_eq!(objections(found(), &[]).len(), 1);
    assert_eq!(objections(found(), &[allowed("tokio")]).len(), 0);
    assert_eq!(objections(found(), &[allowed("tokio"), allowed("actix")]).len(), 1);
}

// The rules, each for one file.

fn names(file: &File, forbidden: &[&str], right: &str) -> Vec<Finding> {
    let code = file.code();
    let found = words(&code).filter(|it| forbidden.contains(&it.text));
    found.map(|it| file.finding(it.line, it.text, right)).collect()
}

fn names_a_runtime(file: &File, right: &str) -> Vec<Finding> {
    let code = file.code();
    let found = words(&code).filter(|it| match it.text {
        "actix" | "actix_rt" | "tokio" => true,
        "tokio_util" => !it.after.starts_with("::codec"),
        _ => false,
    });
    found.map(|it| file.finding(it.line, it.text, right)).collect()
}

fn impure(file: &File) -> Vec<Finding> {
    let mut found =
        names_a_runtime(file, "a pure half decides; the actor beside it sends, receives and waits");
    let code = file.code();
    for word in words(&code) {
        if ["Instant", "SystemTime"].contains(&word.text) && word.after.starts_with("::now") {
            let what = format!("{}::now", word.text);
            found.push(file.finding(word.line, &what, "time comes in as an argument, `now: Instant`"));
        }
    }
    found
}

/// What tests depend on is left out: cargo permits a circle there, and no user ever builds it.
fn depends_on_ours(manifest: &File, may_use: &[&str]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut counts = false;
    for (line, text) in manifest.lines() {
        if let Some(section) = text.strip_prefix('[') {
            counts = section.contains("dependencies") && !section.contains("dev-dependencies");
        }
        // A dependency is a line of its section, or a section of its own: `[dependencies.name]`.
        let name = text.rsplit("dependencies.").next().unwrap_or_default();
        let name = name.split(['.', ' ', '=', ']']).next().unwrap_or_default();
        if counts && (name == "meshwork" || name.starts_with("meshwork-")) && !may_use.contains(&name) {
            found.push(manifest.finding(
                line,
                name,
                "dependencies run cli -> src -> actors -> wire; macros needs none of them",
            ));
        }
    }
    found
}

fn rooms_without_an_owner(file: &File) -> Vec<Finding> {
    let right = "name it after what is inside, or give each thing to the module that owns it";
    let path = file.path.split('/').map(|it| it.trim_end_matches(".rs"));
    let mut found: Vec<Finding> =
        path.filter(|it| ROOMS_WITHOUT_AN_OWNER.contains(it)).map(|it| file.finding(1, it, right)).collect();
    let code = file.code();
    let mut after_mod = false;
    for word in words(&code) {
        if after_mod && ROOMS_WITHOUT_AN_OWNER.contains(&word.text) {
            found.push(file.finding(word.line, word.text, right));
        }
        after_mod = word.text == "mod";
    }
    found
}

fn crate_without_an_owner(manifest: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    for (line, text) in manifest.lines().filter(|(_, it)| it.starts_with("name = ")) {
        let parts = words(text).filter(|it| ROOMS_WITHOUT_AN_OWNER.contains(&it.text));
        found.extend(parts.map(|it| manifest.finding(line, it.text, "name the crate after what is inside")));
    }
    found
}

/// On the map stand paths in backticks, each in full. What has the form of a path but is none, stands in a fenced block.
fn off_the_map(map: &File, sources: &[String], exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut on_the_map = BTreeSet::new();
    let mut fenced = false;
    for (line, text) in map.lines() {
        fenced ^= text.trim_start().starts_with("```");
        // Every second piece between backticks stands inside a pair of them.
        for token in text.split('`').skip(1).step_by(2).filter(|_| !fenced) {
            let is_path = token.ends_with(".rs") && token.contains('/')
                || [".toml", ".md", "/"].iter().any(|it| token.ends_with(it));
            if is_path && !exists(token) {
                found.push(map.finding(line, token, "it does not exist: change the map with what it shows"));
            }
            on_the_map.insert(token);
        }
    }
    for path in sources.iter().filter(|it| !on_the_map.contains(it.as_str())) {
        found.push(map.finding(
            1,
            path,
            "it is not on the map: add its path, in backticks, and a line on what it is for",
        ));
    }
    found
}

fn points_outside(file: &File) -> Vec<Finding> {
    // Written in two pieces, so that this file does not contain what it looks for.
    let outside = [concat!("..", "/shared"), concat!(".lib", "rary")];
    let right = "say it here: whoever clones the project has nothing else";
    let lines =
        file.lines().filter_map(|(line, text)| Some((line, *outside.iter().find(|it| text.contains(*it))?)));
    lines.map(|(line, what)| file.finding(line, what, right)).collect()
}

fn chosen_ports(file: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    let text = stripped(&file.text, Keep::CodeAndStrings);
    for (index, line) in text.lines().enumerate() {
        for host in ["127.0.0.1:", "0.0.0.0:", "localhost:", "[::1]:"] {
            for (at, _) in line.match_indices(host) {
                let port: String = line[at + host.len()..].chars().take_while(char::is_ascii_digit).collect();
                if port.starts_with(|it| it != '0') {
                    let what = format!("{host}{port}");
                    found.push(file.finding(
                        index + 1,
                        &what,
                        "listen on port 0 and ask which one it became",
                    ));
                }
            }
        }
    }
    found
}

// What the rules find, and what is allowed nevertheless.

/// A place that breaks a rule.
struct Finding {
    path: String,
    line: usize,
    what: String,
    right: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: `{}`: {}", self.path, self.line, self.what, self.right)
    }
}

/// An exception from a rule: this file may do this, for this reason.
struct Allowance {
    file: &'static str,
    what: &'static str,
    reason: &'static str,
}

fn verdict(found: Vec<Finding>, allowed: &[Allowance]) {
    let objections = objections(found, allowed);
    assert!(objections.is_empty(), "\n\n{}\n", objections.join("\n"));
}

fn objections(found: Vec<Finding>, allowed: &[Allowance]) -> Vec<String> {
    let covers = |it: &Allowance, finding: &Finding| it.file == finding.path && it.what == finding.what;
    let forbidden = found.iter().filter(|finding| !allowed.iter().any(|it| covers(it, finding)));
    let unused = allowed.iter().filter(|it| !found.iter().any(|finding| covers(it, finding)));
    let unused = unused.map(|it| {
        format!("{}: `{}` is allowed ({}) and not done: delete the allowance", it.file, it.what, it.reason)
    });
    forbidden.map(Finding::to_string).chain(unused).collect()
}

// Reading files.

/// A text file, with its path relative to the root.
struct File {
    path: String,
    text: String,
}

impl File {
    fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path));
        let text =
            text.unwrap_or_else(|error| panic!("{path}: {error}: a rule names this file, so it must exist"));
        Self { path: path.to_owned(), text }
    }

    /// The code that users build: without comments, strings and unit tests.
    fn code(&self) -> String {
        without_tests(stripped(&self.text, Keep::Code))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, text)| (index + 1, text))
    }

    fn finding(&self, line: usize, what: &str, right: &str) -> Finding {
        Finding { path: self.path.clone(), line, what: what.to_owned(), right: right.to_owned() }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(places: &[&str]) -> Vec<File> {
    text_files(places).into_iter().filter(|it| it.path.ends_with(".rs")).collect()
}

/// All text files at or below these places, in order. A place that does not exist holds none.
fn text_files(places: &[&str]) -> Vec<File> {
    let mut files = Vec::new();
    for place in places {
        collect(place, &mut files);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn collect(path: &str, files: &mut Vec<File>) {
    // What is built, fetched or git's own is not the project's text.
    let name = path.rsplit('/').next().unwrap_or(path);
    if ["target", "node_modules", ".git"].contains(&name) {
        return;
    }
    let full = root().join(path);
    // A link is not followed: what it points to is read where it is, or is none of ours.
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

// Just enough of a lexer to know code from comments and strings. All keep the line numbers.

#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Code,
    CodeAndStrings,
}

#[derive(Clone, Copy, PartialEq)]
enum Token {
    Code,
    String,
    Comment,
}

fn stripped(text: &str, keep: Keep) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (token, len) = first_token(rest);
        let (piece, after) = rest.split_at(len);
        if token == Token::Code || token == Token::String && keep == Keep::CodeAndStrings {
            kept.push_str(piece);
        } else {
            kept.push_str(&blank(piece));
        }
        rest = after;
    }
    kept
}

fn first_token(text: &str) -> (Token, usize) {
    let until =
        |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    let first = text.chars().next().unwrap_or_default();
    if text.starts_with("//") {
        return (Token::Comment, text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return (Token::Comment, block_comment_len(text));
    }
    if is_word(first) {
        let word = text.find(|it| !is_word(it)).unwrap_or(text.len());
        let hashes = text[word..].len() - text[word..].trim_start_matches('#').len();
        let is_raw = ["r", "br", "cr"].contains(&&text[..word]) && text[word + hashes..].starts_with('"');
        if is_raw {
            return (Token::String, until(&format!("\"{}", "#".repeat(hashes)), word + hashes + 1));
        }
        return (Token::Code, word);
    }
    if first == '"' {
        return (Token::String, escaped_len(text, '"'));
    }
    if first == '\'' {
        let mut after = text[1..].chars();
        let (content, end) = (after.next(), after.next());
        // Otherwise it is a lifetime: a quote that nothing closes.
        if content == Some('\\') || end == Some('\'') {
            return (Token::String, escaped_len(text, '\''));
        }
    }
    (Token::Code, first.len_utf8())
}

/// Block comments nest.
fn block_comment_len(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    loop {
        let rest = &text[at..];
        match rest.chars().next() {
            None => return at,
            Some(_) if rest.starts_with("/*") => (at, depth) = (at + 2, depth + 1),
            Some(_) if rest.starts_with("*/") => (at, depth) = (at + 2, depth - 1),
            Some(other) => at += other.len_utf8(),
        }
        if depth == 0 {
            return at;
        }
    }
}

/// How long a literal is that begins with this quote and ends with the next one that no backslash escapes.
fn escaped_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, it) in text.char_indices().skip(1) {
        if it == quote && !escaped {
            return at + it.len_utf8();
        }
        escaped = it == '\\' && !escaped;
    }
    text.len()
}

/// Blanks the modules of unit tests. Strings and comments are gone already, so braces can be counted.
fn without_tests(mut code: String) -> String {
    let marker = "#[cfg(test)]";
    let mut from = 0;
    while let Some(at) = code[from..].find(marker).map(|at| from + at) {
        from = at + marker.len();
        let item = code[from..].trim_start();
        if !item.starts_with("mod ") {
            continue;
        }
        let mut depth = 0;
        let len = item.find(|it| {
            depth += i32::from(it == '{') - i32::from(it == '}');
            depth == 0 && matches!(it, ';' | '}')
        });
        let start = code.len() - item.len();
        let end = len.map_or(code.len(), |len| start + len + 1);
        let blanked = blank(&code[start..end]);
        code.replace_range(start..end, &blanked);
    }
    code
}

fn blank(text: &str) -> String {
    text.chars().map(|it| if it == '\n' { '\n' } else { ' ' }).collect()
}

struct Word<'a> {
    line: usize,
    text: &'a str,
    /// The rest of its line.
    after: &'a str,
}

fn words(code: &str) -> impl Iterator<Item = Word<'_>> {
    code.lines().enumerate().flat_map(|(index, line)| {
        let mut rest = line;
        std::iter::from_fn(move || {
            let word = &rest[rest.find(is_word)?..];
            let (text, after) = word.split_at(word.find(|it| !is_word(it)).unwrap_or(word.len()));
            rest = after;
            Some(Word { line: index + 1, text, after })
        })
    })
}

fn is_word(it: char) -> bool {
    it.is_alphanumeric() || it == '_'
}

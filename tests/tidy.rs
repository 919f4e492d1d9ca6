//! Rules about the code, as tests of the code: the names that a file may use, the places of files, the truth of the map.
//!
//! The compiler keeps the order between crates; these tests keep the order inside crates. They read only source text, so they are
//! quick, and each failure names file and line and says what would be right. An exception is an [`Allowance`] with a reason, and
//! an allowance that is no longer needed fails too.

#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/lexer.rs"]
mod lexer;

use files::{Allowance, File, Finding, objections, root, rust_files, text_files, verdict};
use floors::Floors;
use lexer::{Keep, stripped, words};
use std::collections::BTreeSet;

/// Where the source of the project is.
const SOURCES: [&str; 6] = ["wire/src", "actors/src", "src", "cli/src", "macros/src", "xtask/src"];

/// Where the integration tests are.
const TESTS: [&str; 6] =
    ["tests", "cli/tests", "wire/tests", "actors/tests", "macros/tests", "examples/orders/tests"];

/// The files that decide and leave sending, receiving and waiting to the actors beside them. All of `wire/src` is added.
const PURE_HALVES: &[&str] = &[
    "actors/src/answers/restarts.rs",
    "actors/src/master/registry/catalogue.rs",
    "actors/src/master/registry/described.rs",
    "actors/src/master/in_all.rs",
    "actors/src/master/subscribed.rs",
    "actors/src/master/last_values.rs",
    "actors/src/master/feeds.rs",
    "actors/src/master/registry/table.rs",
    "actors/src/master/registry/news.rs",
    "actors/src/events/trie.rs",
    "actors/src/repeated.rs",
    "actors/src/streams/window.rs",
    "actors/src/master/session/streams.rs",
    "actors/src/calls/in_flight.rs",
    "actors/src/calls/bindings.rs",
    "actors/src/calls/reply.rs",
    "actors/src/calls/deadlines.rs",
    "actors/src/branch/link.rs",
    "actors/src/link/backoff.rs",
    "actors/src/link/places.rs",
    "actors/src/link/pulse.rs",
    "actors/src/turns/parts.rs",
    "actors/src/master/session/state.rs",
    "actors/src/master/session/relay.rs",
    "actors/src/master/dispatch.rs",
    "actors/src/master/registry/route.rs",
    "actors/src/master/registry/latency.rs",
    "actors/src/master/registry/rendezvous.rs",
    "actors/src/master/rest.rs",
    "actors/src/master/wishes.rs",
    "actors/src/node/known.rs",
    "actors/src/node/said.rs",
    "src/event_queue.rs",
    "src/tower/budget.rs",
    "src/tower/circuit.rs",
];

/// The floors of each crate, file by file.
const FLOORS: &str = "tests/floors.txt";

/// The only file that may name the codecs.
const CODECS: &str = "wire/src/value.rs";

/// Each file in here is the codec of another protocol.
const DIALECTS: &str = "wire/src/dialect/";

/// Names of files and folders that say nothing about their content, so that any code ends up there.
const ROOMS_WITHOUT_AN_OWNER: [&str; 6] = ["common", "utils", "types", "helpers", "messages", "errors"];

/// Tests that import other crates of the project than `meshwork`.
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
    Allowance {
        file: "tests/mesh/providers.rs",
        what: "meshwork_wire",
        reason: "a branch that tells labels late, and one that keeps to no bounds, is written frame by frame",
    },
    Allowance {
        file: "tests/mesh/headers.rs",
        what: "meshwork_wire",
        reason: "a branch of an earlier version, and one that keeps to no bounds, is written frame by frame",
    },
    Allowance {
        file: "tests/mesh/doors.rs",
        what: "meshwork_wire",
        reason: "a refusal at the door is a frame",
    },
    Allowance {
        file: "tests/mesh/last_values.rs",
        what: "meshwork_wire",
        reason: "branches of earlier versions in it hear frames",
    },
    Allowance {
        file: "tests/mesh/liveness.rs",
        what: "meshwork_wire",
        reason: "a frame that comes byte by byte is written by hand",
    },
    Allowance {
        file: "tests/mesh/shares.rs",
        what: "meshwork_wire",
        reason: "so do the branches in it that ask for too much",
    },
    Allowance {
        file: "tests/mesh/streams.rs",
        what: "meshwork_wire",
        reason: "the ends in it that send or grant more than they may, or know no streams, speak in frames",
    },
    Allowance {
        file: "tests/mesh/names.rs",
        what: "meshwork_wire",
        reason: "it says names in frames that no branch of ours would say",
    },
];

/// Tests that sleep: paused or simulated time is a reason, waiting for an event is none. And tests that name a port: another
/// process may listen on it.
const SLEEPS_AND_PORTS_ALLOWED: &[Allowance] = &[
    Allowance {
        file: "tests/simulation/programs.rs",
        what: "sleep",
        reason: "it runs in simulated time only: the programs of the hosts take their time",
    },
    Allowance {
        file: "tests/simulation/streams.rs",
        what: "sleep",
        reason: "it runs in simulated time only: producers and readers take their time",
    },
    Allowance {
        file: "tests/simulation/layers.rs",
        what: "sleep",
        reason: "it runs in simulated time only: layers take their time",
    },
    Allowance {
        file: "tests/balance.rs",
        what: "sleep",
        reason: "it runs in paused time only: calls and works take their time",
    },
    Allowance {
        file: "tests/simulation/agreement.rs",
        what: "sleep",
        reason: "it runs in simulated time only: every host waits for the same moment",
    },
];

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

/// A map with another hash would have another order in each process, and a seed of the simulation would not go the same way twice.
#[test]
fn maps_of_the_actors_are_those_of_hashed() {
    let mut found = Vec::new();
    for file in rust_files(&["actors/src"]).iter().filter(|file| file.path != "actors/src/hashed.rs") {
        let right =
            "take the maps and sets of crate::hashed, whose order follows from the seed of a simulation";
        found.extend(names(file, &["hashbrown", "RandomState"], right));
        let code = file.code();
        let std = words(&code).filter(|it| it.text == "collections" && it.after.starts_with("::Hash"));
        found.extend(std.map(|it| file.finding(it.line, it.text, right)));
    }
    verdict(found, &[]);
}

#[test]
fn every_file_imports_downwards() {
    let floors = Floors::read(File::read(FLOORS));
    let mut sources = rust_files(&["."]);
    sources.retain(|it| floors.have_room_for(&it.path));
    let paths: Vec<String> = sources.iter().map(|it| it.path.clone()).collect();
    let mut found = floors.wrong(&paths);
    found.extend(floors.upwards(&sources));
    found.extend(floors.off_the_map(&File::read("ARCHITECTURE.md")));
    verdict(found, &[]);
}

#[test]
fn pure_halves_are_pure() {
    let mut files = rust_files(&["wire/src"]);
    files.extend(PURE_HALVES.iter().map(|path| File::read(path)));
    verdict(files.iter().flat_map(impure).collect(), &[]);
}

#[test]
fn one_file_names_bincode() {
    let mut found = Vec::new();
    let below = CODECS.strip_suffix(".rs").expect("it is a file");
    let elsewhere = |path: &str| !path.starts_with(below) && !path.starts_with(DIALECTS);
    for file in rust_files(&["wire/src", "actors/src"]).iter().filter(|it| elsewhere(&it.path)) {
        let right =
            "only wire/src/value.rs, the files below it and the dialects name codecs; call what they offer";
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
fn every_line_of_the_log_is_bounded() {
    let right = "write it by `log_line!`: a peer may repeat the line, and choose its text; `debug` and below are free";
    let files = rust_files(&SOURCES[..4]).into_iter().filter(|it| it.path != "actors/src/repeated.rs");
    verdict(files.flat_map(|it| logs_without_a_bound(&it, right)).collect(), &[]);
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
fn each_guarantee_is_held_by_tests_that_are_there() {
    let tests: String = rust_files(&["."]).into_iter().map(|it| it.text).collect();
    let mut found = Vec::new();
    for file in text_files(&["docs"]).into_iter().filter(|it| it.path.ends_with("guarantees.md")) {
        for (number, line) in (1..).zip(file.text.lines()).filter(|(_, line)| line.starts_with("| ")) {
            let held_by = line.rsplit('|').nth(1).unwrap_or_default();
            let gone = held_by.split('`').skip(1).step_by(2).filter(|name| !tests.contains(*name));
            found.extend(gone.map(|name| file.finding(number, name, "name a test that is there")));
            if line.contains(" a ") && !held_by.contains('`') {
                found.push(file.finding(number, "no test", "name the test that holds the promise"));
            }
        }
    }
    verdict(found, &[]);
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

/// The rules themselves are tried on text that breaks them, since a rule that finds nothing looks like a rule that is kept.
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

    let code =
        file("log::debug!(\"a\"); log_line!(b);\nlog::warn!(\"c\");\n::log::log!(level);\nlog::max_level();");
    assert_eq!(whats(logs_without_a_bound(&code, "")), ["2 log::warn!", "3 log::log!"]);

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

/// Lines at `info` and above, which a peer may be the cause of.
fn logs_without_a_bound(file: &File, right: &str) -> Vec<Finding> {
    let code = file.code();
    let mut found = Vec::new();
    let mut after_log = false;
    for word in words(&code) {
        if after_log && ["error", "warn", "info", "log"].contains(&word.text) && word.after.starts_with('!') {
            found.push(file.finding(word.line, &format!("log::{}!", word.text), right));
        }
        after_log = word.text == "log" && word.after.starts_with("::");
    }
    found
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

/// The dependencies of tests are left out: cargo permits a circle there, and no user ever builds it.
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

/// The map has paths in backticks, each in full. A text in the form of a path that is no path stands in a fenced block.
fn off_the_map(map: &File, sources: &[String], exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut on_the_map = BTreeSet::new();
    let mut fenced = false;
    for (line, text) in map.lines() {
        fenced ^= text.trim_start().starts_with("```");
        // Split at backticks, every second piece stands inside a pair of backticks.
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
    // Written in two pieces, so that this file does not contain the text that it looks for.
    let outside = [concat!("..", "/shared"), concat!(".lib", "rary")];
    let right = "say it here: a reader who clones the project has nothing else";
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

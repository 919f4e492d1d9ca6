//! The first program of the README, as a newcomer meets it: in a new crate outside this workspace, with the dependencies that the README
//! tells to add and no others.

use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The first code block of a language behind `from`, and the text behind the block.
fn code_block<'a>(from: &'a str, language: &str) -> (&'a str, &'a str) {
    let (_, block) = from.split_once(&format!("\n```{language}\n")).expect("the README has such a block");
    block.split_once("```\n").expect("the block ends")
}

/// Runs cargo without the network: whatever the program needs, the workspace has downloaded.
fn cargo(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_NET_OFFLINE", "true")
        // Apart from the workspace, whose features differ, and kept: the second run builds nothing.
        .env("CARGO_TARGET_DIR", Path::new(ROOT).join("target/first_program"))
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {}: {said}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("it prints text")
}

#[test]
fn the_first_program_of_the_readme_runs_in_a_new_crate() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("there is a README");
    let (program, behind) = code_block(&readme, "rust");
    let (commands, _) = code_block(behind, "sh");

    let outside = tempfile::tempdir().expect("there is room");
    let folder = outside.path().join("hello");
    cargo(outside.path(), &["new", "--quiet", "--vcs", "none", "hello"]);
    // The versions that the workspace has downloaded.
    fs::copy(Path::new(ROOT).join("Cargo.lock"), folder.join("Cargo.lock")).expect("there is room");
    fs::write(folder.join("src/main.rs"), program).expect("there is room");
    let added: Vec<_> = commands.lines().filter(|line| line.starts_with("cargo add ")).collect();
    assert!(!added.is_empty(), "{commands}");
    for line in added {
        let words = line.split_whitespace().skip(1);
        let words: Vec<_> = words.map(|word| if word == "../meshwork" { ROOT } else { word }).collect();
        cargo(&folder, &words);
    }
    assert_eq!(cargo(&folder, &["run", "--quiet"]), "45\n66\nsub/test: sub\n");
}

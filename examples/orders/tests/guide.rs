//! What the guide shows of the app is what stands in the app.

use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "../../docs/guide/four-processes.md";

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it is readable").path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn the_code_that_the_guide_shows_stands_in_the_app() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: Vec<String> = sources(&root.join("src"))
        .into_iter()
        .map(|path| fs::read_to_string(path).expect("it is text"))
        .collect();
    let page = fs::read_to_string(root.join(PAGE)).expect("there is a page");
    let shown: Vec<&str> = page
        .split("```rust,ignore\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap_or_default())
        .flat_map(|block| block.split_inclusive("\n}\n"))
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect();
    assert!(shown.len() >= 6, "the page shows parts of the app");
    for part in shown {
        assert!(
            sources.iter().any(|source| source.contains(part)),
            "change {PAGE}, which shows what is not in the app:\n{part}"
        );
    }
}

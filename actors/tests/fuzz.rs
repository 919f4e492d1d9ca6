//! The target of `cargo fuzz` for what operators write, run over its seeds: so it always compiles, and a seed that was once a crash stays a test.

#[path = "../../fuzz/targets/operator.rs"]
mod operator;

use std::{fs, path::Path};

#[test]
fn what_operators_write_is_taken_or_refused_over_the_seeds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/operator");
    let mut count = 0;
    for file in fs::read_dir(corpus).expect("the seeds are kept beside the targets") {
        let path = file.expect("a directory can be listed").path();
        println!("{}", path.display());
        operator::run(&fs::read(path).expect("a seed can be read"));
        count += 1;
    }
    assert!(count >= 4, "{count} seeds");
}

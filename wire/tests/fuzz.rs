//! The targets of `cargo fuzz`, run over their seeds: so the targets always compile, and a seed that was once a crash stays a test.

#[path = "../../fuzz/targets/dialects.rs"]
mod dialects;
#[path = "../../fuzz/targets/frames.rs"]
mod frames;
#[path = "../../fuzz/targets/names.rs"]
mod names;
#[path = "../../fuzz/targets/payload.rs"]
mod payload;
mod recorded;
mod samples;

use bytes::BytesMut;
use dialects::ENDS;
use recorded::{broken_for, heard_by};
use samples::every_golden;
use std::{fs, path::PathBuf};

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus")).join(target)
}

/// The seeds of a target, with their names.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(corpus(target)).expect("the seeds are kept beside the targets");
    let mut seeds: Vec<_> = files
        .map(|file| file.expect("a directory can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seed"))
        .map(|path| {
            let name = path.file_stem().expect("a seed has a name").to_string_lossy().into_owned();
            (name, fs::read(path).expect("a seed can be read"))
        })
        .collect();
    seeds.sort();
    seeds
}

/// The seeds of the frames: each golden frame, all golden frames in one stream, and some broken frames.
fn frames_seeds() -> Vec<(String, Vec<u8>)> {
    let golden = every_golden();
    let mut all = BytesMut::new();
    for golden in &golden {
        golden.frame.encode(&mut all);
    }
    let broken: [(&str, Vec<u8>); 7] = [
        ("broken_cut", golden[0].bytes()[..30].to_vec()),
        ("broken_empty_frame", vec![0; 4]),
        ("broken_too_long", vec![18, 0, 0, 0x7f, 18]),
        ("broken_behind_whole", [golden[2].bytes(), vec![1, 0, 0, 0, 99]].concat()),
        ("broken_list_lies", vec![11, 0, 0, 0, 4, 1, 253, 0, 0, 0, 0, 0, 0, 0, 0x10]),
        ("broken_text_lies", vec![6, 0, 0, 0, 16, 252, 0, 0, 0xff, 0]),
        ("broken_http", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ];
    let mut seeds = vec![("golden_all".to_owned(), all.to_vec())];
    seeds.extend(golden.iter().map(|golden| (format!("golden_{}", golden.name), golden.bytes())));
    seeds.extend(broken.map(|(name, bytes)| (name.to_owned(), bytes)));
    seeds.sort();
    seeds
}

/// The seeds of the payloads: the byte that chooses the encoding, and a value in this encoding, or bytes that are none.
fn payload_seeds() -> Vec<(String, Vec<u8>)> {
    let json = |text: &str| [b"\x02", text.as_bytes()].concat();
    let seeds: [(&str, Vec<u8>); 18] = [
        ("bincode_leaf", vec![0, 0]),
        ("bincode_node", vec![0, 4, 1, b'a', 2, 0, 1, 3, 1, 1, b'k', 2, 1, b'v']),
        ("bincode_pair", vec![0, 3, 0, 1, 1, 251, 0, 1]),
        ("bincode_fixed", vec![0, 9, 7, 3, 0xc3, 0x9f, 1, 2, 4, 6, 1, 1, b'n', 2, 0xff, 0, 3]),
        ("bincode_deep", [vec![0], vec![3; 500]].concat()),
        ("bincode_layers", [vec![0], vec![1; 300]].concat()),
        ("bincode_empty_elements", vec![0, 252, 0, 0, 0, 1]),
        ("bincode_list_lies", vec![0, 4, 0, 253, 0, 0, 0, 0, 0, 0, 0, 0x10]),
        ("message_pack_leaf", [&[1, 0xa4][..], b"Leaf"].concat()),
        (
            "message_pack_node",
            b"\x01\x81\xa4Node\x83\xa4name\xa1a\xa8children\x91\xa4Leaf\xa5index\x80".to_vec(),
        ),
        ("message_pack_array", vec![1, 0x93, 1, 0xc0, 0x81, 0xa1, b'k', 0xc3]),
        ("message_pack_deep", [vec![1], vec![0x91; 300]].concat()),
        ("message_pack_list_lies", vec![1, 0xdd, 0xff, 0xff, 0xff, 0xff, 1]),
        ("json_leaf", json(r#""Leaf""#)),
        (
            "json_node",
            json(r#"{"Node":{"name":"a","children":["Leaf",{"Number":-1}],"index":{"k":{"Text":"v"}}}}"#),
        ),
        (
            "json_fixed",
            json(
                r#"{"id":1,"small":[1,-2,"ß",true],"at":[1,2,3],"name":null,"seal":[1,2],"nothing":[null]}"#,
            ),
        ),
        ("json_deep", json(&"[".repeat(300))),
        ("json_layers", json("1")),
    ];
    let mut seeds: Vec<_> = seeds.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    seeds.sort();
    seeds
}

/// The seeds of other protocols: for each end, the byte that chooses the end, and the recorded bytes of the original programs, whole and
/// broken.
fn dialects_seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (number, end) in ENDS.into_iter().enumerate() {
        let chosen = u8::try_from(number).expect("they are few");
        let name = end.name.replace(' ', "_");
        let heard = heard_by(end);
        for (number, bytes) in heard.iter().enumerate() {
            seeds.push((format!("{name}_{number:02}"), [&[chosen][..], bytes].concat()));
        }
        seeds.push((format!("{name}_all"), [&[chosen][..], &heard.concat()].concat()));
        for (number, bytes) in broken_for(end).iter().enumerate() {
            seeds.push((format!("{name}_broken_{number:02}"), [&[chosen][..], bytes].concat()));
        }
    }
    seeds.sort();
    seeds
}

/// The environment variable that makes the tests write the seeds anew, after a frame was added.
const WRITE_SEEDS: &str = "MESHWORK_WRITE_SEEDS";

fn assert_kept(target: &str, expected: Vec<(String, Vec<u8>)>) {
    if std::env::var_os(WRITE_SEEDS).is_some() {
        fs::create_dir_all(corpus(target)).expect("there is room");
        for (name, bytes) in &expected {
            fs::write(corpus(target).join(name).with_extension("seed"), bytes).expect("there is room");
        }
    }
    let seeds = seeds(target);
    for seed in expected {
        assert!(
            seeds.contains(&seed),
            "{target}/{} is missing or old: run `{WRITE_SEEDS}=1 cargo test -p meshwork-wire --test fuzz`",
            seed.0
        );
    }
}

#[test]
fn frames_hold_over_their_seeds() {
    for (name, bytes) in seeds("frames") {
        println!("{name}");
        frames::run(&bytes);
    }
}

#[test]
fn payloads_hold_over_their_seeds() {
    for (name, bytes) in seeds("payload") {
        println!("{name}");
        payload::run(&bytes);
    }
}

#[test]
fn names_hold_over_their_seeds() {
    for (name, bytes) in seeds("names") {
        println!("{name}");
        names::run(&bytes);
    }
}

#[test]
fn dialects_hold_over_their_seeds() {
    for (name, bytes) in seeds("dialects") {
        println!("{name}");
        dialects::run(&bytes);
    }
}

#[test]
fn what_other_programs_were_heard_to_say_is_a_seed() {
    assert_kept("dialects", dialects_seeds());
}

#[test]
fn every_golden_frame_is_a_seed() {
    assert_kept("frames", frames_seeds());
}

#[test]
fn every_encoding_has_seeds() {
    assert_kept("payload", payload_seeds());
}

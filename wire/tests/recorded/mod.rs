//! The recorded bytes of the original programs of other protocols, and bytes that no such program should send.

use crate::dialects::End;
use serde_json::Value;

/// A line of a transcript: whether a server was to hear it, and its bytes.
fn lines(transcript: &str) -> Vec<(bool, Vec<u8>)> {
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a transcript is JSON");
        let bytes = match (line["utf8"].as_str(), line["hex"].as_str()) {
            (Some(text), _) => text.as_bytes().to_vec(),
            (None, Some(hex)) => {
                let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
                (0..hex.len()).step_by(2).map(byte).collect()
            }
            // The connection was closed here.
            (None, None) => return None,
        };
        let direction = line["direction"].as_str().expect("a direction");
        Some((direction.ends_with(">server") || direction.ends_with(">master"), bytes))
    };
    transcript.lines().filter_map(line).collect()
}

/// The recorded messages to this end.
pub(crate) fn heard_by(end: End) -> Vec<Vec<u8>> {
    let (protocol, role) = end.name.split_once(' ').expect("a protocol and a role");
    let mut lines = match protocol {
        "light_rpc" => lines(include_str!("light_rpc.jsonl")),
        "dnode" => lines(include_str!("dnode.jsonl")),
        // The first recorded connection; the branches of the rest are refused or replaced.
        _ => lines(include_str!("node_mesh.jsonl"))[..12].to_vec(),
    };
    lines.retain(|(to_server, _)| *to_server == (role == "server"));
    let mut heard: Vec<_> = lines.into_iter().map(|(_, bytes)| bytes).collect();
    if protocol == "node-mesh" && role != "server" {
        // The answer to the bind has the id that the end under test draws.
        let (recorded, drawn) = (b"8314c6188b3155cf", b"m000000000000001");
        let at = heard[0].windows(16).position(|window| window == recorded).expect("it answers the bind");
        heard[0][at..at + 16].copy_from_slice(drawn);
    }
    heard
}

/// Bytes that end the connection.
pub(crate) fn broken_for(end: End) -> Vec<Vec<u8>> {
    let texts: &[&[u8]] = match end.name.split_once(' ').expect("a protocol and a role").0 {
        "light_rpc" => &[
            b"x\n{}",
            b"\n{}",
            b"-1\n{}",
            b"9999999999\n",
            b"12345678901",
            b"GET / HTTP/1.1\r\n",
            b"\xc4\x01\xc0",
            b"+5\n{}",
            b"1 \n{}",
            b"0x10\n",
            b"\xd9\xa1\n",
        ],
        "dnode" => &[
            b"{\n",
            b"[]\n",
            b"17\n{}\n",
            b"{\"method\":\"a\",\"arguments\":[1],\"callbacks\":{\"x\":[\"0\"]}}\n",
            b"{\"method\":\"a\",\"arguments\":[1],\"callbacks\":{\"1\":7}}\n",
            b"{\"method\":\"a\",\"arguments\":7}\n",
            b"\xff\xfe\n",
            b"GET / HTTP/1.1\r\n",
        ],
        _ => &[
            b"garbage",
            b"{\"method\":1}\n",
            b"\xc4\x01\xc1",
            b"\xc4\x01\x05",
            b"\xc6\xff\xff\xff\xff",
            b"\xc4\x05\xdd\xff\xff\xff\xff",
            b"\xc4\x06\x91\xdb\xff\xff\xff\xff",
            b"GET / HTTP/1.1\r\n",
        ],
    };
    let mut broken: Vec<_> = texts.iter().map(|text| text.to_vec()).collect();
    // Nested deeper than the bound.
    broken.push(match end.name.split_once(' ').expect("a protocol and a role").0 {
        "dnode" => [b"{\"method\":\"a\",\"links\":", &[b'['; 300][..], &[b']'; 300], b"}\n"].concat(),
        "node-mesh" => [&[0xC5, 1, 44][..], &[0x91; 300]].concat(),
        _ => b"10000000000\n".to_vec(),
    });
    broken
}

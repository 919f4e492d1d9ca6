//! Bytes from a dnode client and from a dnode server: whatever they are, what is answered are whole lines of JSON, and what is asked of
//! us can be written as frames and read again.

use bytes::BytesMut;
use meshwork_wire::{Allowed, Bound, Dialect, Dnode, Frame, ResultStyle, Said, SessionId};
use std::time::{Duration, Instant};

/// Reads the bytes as what a client says, then as what a server says.
pub(crate) fn run(bytes: &[u8]) {
    let now = Instant::now();
    let mut server = Dnode::server("peer", Allowed::all(), ResultStyle::ErrorFirst);
    let mut said = Said::default();
    server.begin(now, &mut said);
    said.frames.clear();
    let bound = Bound {
        session: SessionId(1),
        master: "master".into(),
        frame_len_max: 1 << 24,
        in_flight_max: 1 << 16,
        heartbeat_ms: 5_000,
    };
    server.say(Frame::Bound(bound), now, &mut said).expect("it is bound");
    _ = server.hear(&mut BytesMut::from(bytes), now, &mut said);
    server.expire(now + Duration::from_secs(100), &mut said);
    check(&said);

    let mut client = Dnode::client("bridge".into(), None, "old", ResultStyle::Result);
    let mut said = Said::default();
    client.begin(now, &mut said);
    _ = client.hear(&mut BytesMut::from(bytes), now, &mut said);
    client.expire(now + Duration::from_secs(100), &mut said);
    check(&said);
}

fn check(said: &Said) {
    let text = std::str::from_utf8(&said.bytes).expect("text");
    assert!(text.is_empty() || text.ends_with('\n'), "a line that is not whole");
    assert!(
        text.lines().all(|line| line.starts_with('{') && line.ends_with('}')),
        "a line that is no object"
    );
    for frame in &said.frames {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        assert_eq!(Frame::decode(&bytes.split_off(4).freeze()).as_ref().ok(), Some(frame));
    }
}

//! Bytes from a node-mesh branch, before and behind its bind: whatever they are, what is asked of us can be written as frames and read
//! again.

use bytes::BytesMut;
use meshwork_wire::{Bound, Dialect, Frame, NodeMeshServer, Said, SessionId};
use std::time::{Duration, Instant};

/// Reads the bytes; when they bind, the master says yes in the middle.
pub(crate) fn run(bytes: &[u8]) {
    let now = Instant::now();
    let mut server = NodeMeshServer::new("peer");
    let (mut said, mut bytes) = (Said::default(), BytesMut::from(bytes));
    _ = server.hear(&mut bytes, now, &mut said);
    if matches!(said.frames.last(), Some(Frame::Bind(_))) {
        let bound = Bound {
            session: SessionId(1),
            master: "master".into(),
            frame_len_max: 1 << 24,
            in_flight_max: 1 << 16,
            heartbeat_ms: 5_000,
        };
        server.say(Frame::Bound(bound), now, &mut said).expect("it is bound");
        _ = server.hear(&mut bytes, now, &mut said);
    }
    server.expire(now + Duration::from_secs(100), &mut said);
    for frame in &said.frames {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        assert_eq!(Frame::decode(&bytes.split_off(4).freeze()).as_ref().ok(), Some(frame));
    }
}

//! Bytes from a light_rpc client and from a light_rpc server: whatever they are, what is answered are whole packets, and what is
//! asked of us is a request of known shape.

use bytes::BytesMut;
use meshwork_wire::{
    Allowed, Bound, CallbackId, Dialect, Frame, LightRpcClient, LightRpcServer, Said, SessionId,
};
use std::time::Instant;

/// Reads the bytes as what a client says, then as what a server says.
pub(crate) fn run(bytes: &[u8]) {
    let now = Instant::now();
    let mut server = LightRpcServer::new("peer", Allowed::all());
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
    check(&said);

    let mut client = LightRpcClient::new("bridge".into(), None, "old");
    let mut said = Said::default();
    _ = client.hear(&mut BytesMut::from(bytes), now, &mut said);
    client.say(Frame::Cancel(CallbackId(1)), now, &mut said).expect("it takes everything");
    check(&said);
}

/// What was said is whole, and can be written as frames and read again.
fn check(said: &Said) {
    let mut rest = &said.bytes[..];
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let length: usize = std::str::from_utf8(&rest[..end]).expect("digits").parse().expect("a length");
        rest = &rest[end + 1 + length..];
    }
    assert!(rest.is_empty(), "a packet that is not whole");
    for frame in &said.frames {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        assert_eq!(Frame::decode(&bytes.split_off(4).freeze()).as_ref().ok(), Some(frame));
    }
}

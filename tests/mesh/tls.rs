//! TLS between the nodes of a mesh, at gateways and bridges: who is let in, what both ends are told when one is not, and certificates that
//! are read again while links stand.

use crate::{soon, until_known};
use meshwork::limits::{TLS_HANDSHAKE_LEN_MAX, TLS_HANDSHAKE_WITHIN};
use meshwork::prelude::*;
use meshwork::{
    Address, Authenticate, BindError, Bridge, BridgeError, DialTls, Identity, Limits, ListenTls, Pem,
    Permissions, Status, TlsError, TlsFault,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An authority that signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
struct Signed {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("it is signed").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn ca(&self) -> Pem {
        Pem::Text(self.pem.clone().into())
    }

    fn sign(&self, names: &[&str]) -> Signed {
        self.sign_as(names, |_| {})
    }

    fn sign_as(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names are valid");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("it is signed").pem();
        Signed { certificate, key: key.serialize_pem() }
    }

    fn expired(&self, names: &[&str]) -> Signed {
        self.sign_as(names, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    /// A listener's end, for `localhost` and 127.0.0.1.
    fn listens(&self) -> ListenTls {
        let Signed { certificate, key } = self.sign(&["localhost", "127.0.0.1"]);
        ListenTls::new(text(&certificate), text(&key)).expect("they are good")
    }

    fn listens_mutually(&self, clients: &Authority) -> ListenTls {
        let Signed { certificate, key } = self.sign(&["localhost", "127.0.0.1"]);
        ListenTls::mutual(text(&certificate), text(&key), clients.ca()).expect("they are good")
    }

    fn dials(&self) -> DialTls {
        DialTls::new(self.ca()).expect("it is good")
    }

    fn dials_as(&self, own: &Signed) -> DialTls {
        DialTls::mutual(self.ca(), text(&own.certificate), text(&own.key)).expect("they are good")
    }
}

fn text(pem: &str) -> Pem {
    Pem::Text(pem.into())
}

/// A master that listens with TLS.
async fn listening(master: MasterActor, tls: &ListenTls) -> (Master, Address) {
    let master = Master::from(master.start());
    let address = master.listen(Listen::tcp("127.0.0.1:0").tls(tls)).await.expect("it listens");
    (master, address)
}

fn adder(name: &'static str) -> BranchActor {
    BranchActor::new(name).respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) })
}

async fn refused(branch: BranchActor, address: &Address) -> BindError {
    soon(branch.bind(address)).await.expect_err("it is refused")
}

fn fault(error: &BindError) -> &TlsFault {
    match error {
        BindError::Tls { fault, .. } => fault,
        error => panic!("no fault of TLS: {error}"),
    }
}

/// A client of TLS that is not of meshwork, and shows this certificate.
async fn foreign(
    address: &Address,
    ca: &Authority,
    own: Option<&Signed>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).expect("PEM")).expect("a CA");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("it has versions")
        .with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some(own) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).expect("PEM")],
                PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("PEM"),
            )
            .expect("they are good"),
    };
    let name = ServerName::try_from("localhost").expect("it is a name");
    let stream = TcpStream::connect(address.as_str()).await?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A listener of TLS that is not of meshwork, and takes one connection after the other.
async fn foreign_listener(own: &Signed) -> Address {
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("it has versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).expect("PEM")],
            PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("PEM"),
        )
        .expect("they are good");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
    let address = listener.local_addr().expect("it has one").into();
    actix_rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The client decides how it ends.
            let _ = acceptor.accept(stream).await;
        }
    });
    address
}

#[actix::test]
async fn branches_call_and_publish_over_tls() {
    let ca = Authority::new("ca");
    let (master, address) = listening(MasterActor::new("master"), &ca.listens()).await;
    let _adder = soon(adder("adder").tls(&ca.dials()).bind(&address)).await.expect("it binds");
    let (heard, mut events) = crate::ear::<String>();
    let caller = soon(BranchActor::new("caller").tls(&ca.dials()).bind(&address)).await.expect("it binds");
    let _subscription = caller.subscribe("news/*", heard).await.expect("it subscribes");
    assert_eq!(soon(caller.call::<i64>("add", (22, 22))).await.expect("a sum"), 44);
    let calls = (0..10_000_i64).map(|n| (n, 1));
    let sums = soon(caller.call_many::<i64>("add", calls)).await;
    assert!(sums.into_iter().zip(0..).all(|(sum, n)| sum.expect("a sum") == n + 1));
    master.publish("news/one", "news").await.expect("it leaves");
    assert_eq!(soon(events.recv()).await, Some(("news/one".to_owned(), "news".to_owned())));
}

/// A link over TLS never reports bytes as written that still stand in its buffers, and leaves none behind.
#[actix::test]
async fn long_and_short_replies_arrive_whole_over_tls() {
    let ca = Authority::new("ca");
    let (_master, address) = listening(MasterActor::new("master"), &ca.listens()).await;
    let echo = BranchActor::new("echo")
        .respond("echo", |bytes: meshwork::ByteBuf| async move { Ok(bytes) })
        .tls(&ca.dials());
    let _echo = soon(echo.bind(&address)).await.expect("it binds");
    let caller = soon(BranchActor::new("caller").tls(&ca.dials()).bind(&address)).await.expect("it binds");
    let long: Vec<u8> = (0..8_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let calls = [1, 16_383, 16_384, 16_385, 200_000, 8_000_000].map(|len| {
        let (caller, bytes) = (caller.clone(), meshwork::ByteBuf::from(&long[..len]));
        async move {
            let back: meshwork::ByteBuf = caller.call("echo", bytes.clone()).await.expect("it is echoed");
            assert!(back == bytes, "{len}");
        }
    });
    soon(futures::future::join_all(calls)).await;
}

/// Tells the names of each certificate, and lets everyone in.
struct Guard(mpsc::UnboundedSender<Option<Vec<String>>>);

impl Actor for Guard {
    type Context = Context<Self>;
}

impl Handler<Authenticate> for Guard {
    type Result = Result<Identity, String>;

    fn handle(&mut self, asked: Authenticate, _: &mut Context<Self>) -> Self::Result {
        let names = |certificate: meshwork::link::Certificate| {
            certificate.names.iter().map(ToString::to_string).collect()
        };
        self.0.send(asked.certificate.map(names)).expect("the test listens");
        Ok(Permissions::default().into())
    }
}

#[actix::test]
async fn the_names_of_a_client_certificate_are_told_to_the_check_of_the_bind() {
    let ca = Authority::new("ca");
    let (told, mut names) = mpsc::unbounded_channel();
    let guard = Guard(told).start().recipient();
    let (_master, address) =
        listening(MasterActor::new("master").authenticate(guard), &ca.listens_mutually(&ca)).await;
    let common =
        |params: &mut CertificateParams| params.distinguished_name.push(DnType::CommonName, "common");
    let many = ca.sign_as(&["one", "two.example"], |params| {
        common(params);
        let uri = "spiffe://mesh/one".try_into().expect("it is ASCII");
        params.subject_alt_names.push(SanType::URI(uri));
    });
    let old = ca.sign_as(&[], common);
    for (name, own, expected) in
        [("many", many, vec!["one", "two.example", "spiffe://mesh/one"]), ("old", old, vec!["common"])]
    {
        let _branch =
            soon(BranchActor::new(name).tls(&ca.dials_as(&own)).bind(&address)).await.expect("it binds");
        let told = soon(names.recv()).await.expect("it is asked");
        assert_eq!(told, Some(expected.into_iter().map(str::to_owned).collect()));
    }
}

/// Without TLS, or without a CA for clients, there is no certificate to tell of.
#[actix::test]
async fn a_client_that_is_asked_for_no_certificate_has_none() {
    let ca = Authority::new("ca");
    let (told, mut names) = mpsc::unbounded_channel();
    let guard = Guard(told).start().recipient();
    let (_master, address) = listening(MasterActor::new("master").authenticate(guard), &ca.listens()).await;
    let own = ca.sign(&["one"]);
    let _branch =
        soon(BranchActor::new("one").tls(&ca.dials_as(&own)).bind(&address)).await.expect("it binds");
    assert_eq!(soon(names.recv()).await, Some(None));
}

/// Each fault is told at the dialling end, as what it is, and ends the first bind of a branch that would wait for its master.
#[actix::test]
async fn a_certificate_that_is_not_accepted_ends_a_first_bind_and_is_named() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let (master, address) = listening(MasterActor::new("master"), &ca.listens_mutually(&ca)).await;
    let waiting = |tls: &DialTls| BranchActor::new("one").tls(tls).wait_for_master(Duration::MAX);
    let good = ca.sign(&["one"]);

    let error = refused(waiting(&other.dials_as(&good)), &address).await;
    assert_eq!(fault(&error), &TlsFault::UnknownCa, "{error}");
    let error = refused(waiting(&ca.dials_as(&good).name("master.example")), &address).await;
    assert!(
        error.to_string().ends_with("is not for master.example, but for localhost, 127.0.0.1"),
        "{error}"
    );
    let error = refused(waiting(&ca.dials()), &address).await;
    assert_eq!(fault(&error), &TlsFault::Demanded, "{error}");
    let error = refused(waiting(&ca.dials_as(&other.sign(&["one"]))), &address).await;
    assert!(error.to_string().ends_with("it does not trust the CA that has signed it"), "{error}");
    assert!(matches!(fault(&error), TlsFault::Refused(_)) && error.may_return());

    assert_eq!(master.snapshot().await.expect("it runs").sessions.len(), 0, "none of them was bound");
    let bound = soon(waiting(&ca.dials_as(&good).name("localhost")).bind(&address)).await;
    bound.expect("it binds");
}

#[actix::test]
async fn an_expired_certificate_is_named_at_the_end_that_is_shown_it_and_at_the_other() {
    let ca = Authority::new("ca");
    let address = foreign_listener(&ca.expired(&["127.0.0.1"])).await;
    let error = refused(BranchActor::new("one").tls(&ca.dials()), &address).await;
    assert_eq!(fault(&error), &TlsFault::Expired, "{error}");

    let (_master, address) = listening(MasterActor::new("master"), &ca.listens_mutually(&ca)).await;
    let shown = |own: Signed| {
        let (address, ca) = (address.clone(), &ca);
        async move {
            let mut stream = foreign(&address, ca, Some(&own)).await?;
            stream.read_u8().await
        }
    };
    let error = soon(shown(ca.expired(&["one"]))).await.expect_err("it is refused");
    assert!(error.to_string().contains("CertificateExpired"), "{error}");
    let of_a_server = ca.sign_as(&["one"], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let error = soon(shown(of_a_server)).await.expect_err("it is refused");
    assert!(error.to_string().contains("UnsupportedCertificate"), "{error}");
}

#[actix::test]
async fn a_plain_node_at_a_listener_with_tls_and_a_node_with_tls_at_a_plain_listener_are_told() {
    let ca = Authority::new("ca");
    let (master, secure) = listening(MasterActor::new("master"), &ca.listens()).await;
    let error = refused(BranchActor::new("one").wait_for_master(Duration::MAX), &secure).await;
    assert!(error.to_string().contains("this address takes TLS only"), "{error}");

    let plain = master.listen(Listen::tcp("127.0.0.1:0")).await.expect("it listens");
    let error =
        refused(BranchActor::new("one").tls(&ca.dials()).wait_for_master(Duration::MAX), &plain).await;
    let native = "the native protocol of meshwork";
    assert_eq!(fault(&error), &TlsFault::NotSpoken(Some(native)), "{error}");

    // And what no node of meshwork sends.
    for (said, answer) in
        [(&b"GET / HTTP/1.1\r\n\r\n"[..], &b"\x15\x03"[..]), (b"12\n{\"id\":1}", b"\x15\x03")]
    {
        let mut stream = TcpStream::connect(secure.as_str()).await.expect("it listens");
        stream.write_all(said).await.expect("it is sent");
        let mut heard = Vec::new();
        soon(stream.read_to_end(&mut heard)).await.expect("it is closed in order");
        assert!(heard.starts_with(answer), "{heard:?}");
    }
    // A ClientHello so short that it could be the beginning of a frame.
    let mut stream = TcpStream::connect(plain.as_str()).await.expect("it listens");
    stream.write_all(b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4").await.expect("it is sent");
    let mut heard = Vec::new();
    soon(stream.read_to_end(&mut heard)).await.expect("it is closed in order");
    assert!(String::from_utf8_lossy(&heard).contains("the other end speaks TLS, and this address does not"));
}

#[actix::test]
async fn an_address_that_demands_tls_is_never_spoken_to_without() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
    let port = listener.local_addr().expect("it has one").port();
    let (ca, address) = (Authority::new("ca"), Address::from(format!("tls://127.0.0.1:{port}")));
    let waiting = || BranchActor::new("one").wait_for_master(Duration::MAX);
    let error = refused(waiting(), &address).await;
    assert_eq!((fault(&error), error.may_return()), (&TlsFault::NoCa, false), "{error}");
    let error = refused(waiting().tls(&ca.dials()), &format!("tcp://127.0.0.1:{port}").into()).await;
    assert_eq!(fault(&error), &TlsFault::NotWanted, "{error}");
    let ended = soon(Bridge::dnode(&address).run("127.0.0.1:0")).await;
    assert!(matches!(&ended, BridgeError::Tls { fault: TlsFault::NoCa, .. }), "{ended}");
    drop(listener);

    let master = Master::from(MasterActor::new("master").start());
    let error = master.listen(Listen::tcp("tls://127.0.0.1:0")).await.expect_err("there is no certificate");
    assert!(error.to_string().contains("no certificate is given"), "{error}");
    let listen = Listen::tcp("tcp://127.0.0.1:0").tls(&ca.listens());
    let error = master.listen(listen).await.expect_err("it asks for no TLS");
    assert!(error.to_string().contains("asks for no TLS"), "{error}");
    let secure =
        master.listen(Listen::tcp("tls://127.0.0.1:0").tls(&ca.listens())).await.expect("it listens");
    let branch = BranchActor::new("one").tls(&ca.dials());
    soon(branch.bind(format!("tls://{secure}"))).await.expect("it binds");
}

/// A gateway without TLS hangs up on a handshake, at once.
#[actix::test]
async fn a_dial_with_tls_at_a_plain_gateway_is_told_what_may_be_wrong() {
    let (ca, master) = (Authority::new("ca"), Master::from(MasterActor::new("master").start()));
    let at = "127.0.0.1:0";
    for listen in [Listen::light_rpc(at), Listen::dnode(at), Listen::node_mesh(at)] {
        let gateway = master.listen(listen).await.expect("it listens");
        let branch = BranchActor::new("one").dialect(Dialect::NodeMesh).tls(&ca.dials());
        let error = refused(branch, &gateway).await;
        assert!(error.to_string().contains("TLS"), "{error}");
        assert!(!error.to_string().contains("took longer"), "{error}");
    }
}

/// Certificates in a folder that ends with the test.
struct Files(tempfile::TempDir);

impl Files {
    fn new(authority: &Authority, signed: &Signed) -> Self {
        let files = Self(tempfile::tempdir().expect("a folder"));
        files.write(authority, signed);
        files
    }

    fn write(&self, authority: &Authority, signed: &Signed) {
        self.put("ca.pem", &authority.pem);
        self.put("own.pem", &signed.certificate);
        self.put("own.key", &signed.key);
    }

    fn put(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).expect("it is written");
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }
}

#[actix::test]
async fn certificates_are_read_again_and_links_that_stand_stay() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let names = ["localhost", "127.0.0.1"];
    let files = Files::new(&before, &before.sign(&names));
    let tls = ListenTls::mutual(files.path("own.pem"), files.path("own.key"), files.path("ca.pem"));
    let tls = tls.expect("they are good");
    let (master, address) = listening(MasterActor::new("master"), &tls).await;
    let old = adder("old").tls(&before.dials_as(&before.sign(&["old"])));
    let old = soon(old.bind(&address)).await.expect("it binds");

    // Wrong files change nothing.
    files.put("own.pem", "no certificate");
    let error = tls.reload().expect_err("it is none");
    assert!(matches!(error, TlsError::Wrong { .. }), "{error}");
    let still = BranchActor::new("still").tls(&before.dials_as(&before.sign(&["still"])));
    let still = soon(still.bind(&address)).await.expect("it binds");

    files.write(&after, &after.sign(&names));
    tls.reload().expect("they are good");
    let error =
        refused(BranchActor::new("new").tls(&before.dials_as(&before.sign(&["new"]))), &address).await;
    assert_eq!(fault(&error), &TlsFault::UnknownCa, "{error}");
    let new = BranchActor::new("new").tls(&after.dials_as(&after.sign(&["new"])));
    let new = soon(new.bind(&address)).await.expect("it binds");
    assert_eq!(soon(new.call::<i64>("add", (1, 2))).await.expect("the old link is there"), 3);
    assert_eq!(soon(still.call::<i64>("add", (1, 2))).await.expect("and so is this one"), 3);
    let names: Vec<_> =
        master.snapshot().await.expect("it runs").sessions.into_iter().map(|session| session.name).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    drop(old);
}

/// A branch that has been bound waits for its master, and for the certificates that it needs.
#[actix::test]
async fn a_branch_that_was_bound_outlives_certificates_that_do_not_match() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let signed = |authority: &Authority| authority.sign(&["localhost", "127.0.0.1"]);
    let theirs = Files::new(&before, &signed(&before));
    let listens = ListenTls::new(theirs.path("own.pem"), theirs.path("own.key")).expect("they are good");
    let (first, address) = listening(MasterActor::new("master"), &listens).await;
    let ours = Files::new(&before, &signed(&before));
    let dials = DialTls::new(ours.path("ca.pem")).expect("it is good");
    let branch = adder("adder").backoff(Duration::from_millis(1), Duration::from_millis(5)).tls(&dials);
    let branch = soon(branch.bind(&address)).await.expect("it binds");

    first.drain(Duration::ZERO).await.expect("it drains");
    theirs.write(&after, &signed(&after));
    listens.reload().expect("they are good");
    let second = Master::from(MasterActor::new("master").start());
    second.listen(Listen::tcp(&address).tls(&listens)).await.expect("it listens again");
    let mut status = branch.status().await.expect("it runs");
    let rebinding = |status: &Status| matches!(status, Status::Rebinding);
    soon(status.wait_for(rebinding)).await.expect("it has not ended");
    ours.write(&after, &signed(&after));
    dials.reload().expect("it is good");
    until_known(&second, "adder", true).await;
    assert_eq!(soon(second.call::<i64>("add", (1, 2))).await.expect("it is back"), 3);
}

#[actix::test]
async fn gateways_and_bridges_speak_tls_at_both_of_their_sides() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let adding = MasterActor::new("served").respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) });
    let (served, gateway_tls) = (Master::from(adding.start()), old.listens_mutually(&old));
    let (master, address) = listening(MasterActor::new("master"), &new.listens_mutually(&new)).await;
    let (to_server, to_master) = (old.dials_as(&old.sign(&["bridge"])), new.dials_as(&new.sign(&["bridge"])));
    type Way = (&'static str, fn(Address) -> Listen, fn(Address) -> Bridge);
    let ways: [Way; 3] = [
        ("light", |at| Listen::light_rpc(at), |at| Bridge::light_rpc(at)),
        ("dnode", |at| Listen::dnode(at), |at| Bridge::dnode(at)),
        ("node", |at| Listen::node_mesh(at), |at| Bridge::node_mesh(at)),
    ];
    for (prefix, listen, bridge) in ways {
        let listen = listen("127.0.0.1:0".into()).tls(&gateway_tls);
        let gateway = served.listen(listen).await.expect("it listens");
        let wrong = bridge(gateway.clone()).prefix(prefix).server_tls(&to_master).tls(&to_master);
        let ended = soon(wrong.run(&address)).await;
        assert!(matches!(&ended, BridgeError::Tls { fault: TlsFault::UnknownCa, .. }), "{ended}");
        let wrong = bridge(gateway.clone()).prefix(prefix).server_tls(&to_server).tls(&new.dials());
        let ended = soon(wrong.run(&address)).await;
        assert!(
            matches!(&ended, BridgeError::Tls { address: at, fault: TlsFault::Demanded } if at == &address),
            "{ended}"
        );
        let bridge = bridge(gateway).prefix(prefix).name(prefix).server_tls(&to_server).tls(&to_master);
        let bridge = actix_rt::spawn(bridge.run(&address));
        until_known(&master, prefix, true).await;
        let sum = soon(master.call::<i64>(format!("{prefix}/add"), (20, 22))).await;
        assert_eq!(sum.expect("the server answers"), 42, "{prefix}");
        bridge.abort();
    }

    // A branch of ours at a master of node-mesh.
    let gateway =
        served.listen(Listen::node_mesh("127.0.0.1:0").tls(&gateway_tls)).await.expect("it listens");
    let branch = BranchActor::new("branch").dialect(Dialect::NodeMesh);
    let error = refused(branch.tls(&old.dials()), &gateway).await;
    assert_eq!(fault(&error), &TlsFault::Demanded, "{error}");
    let branch = BranchActor::new("branch").dialect(Dialect::NodeMesh).tls(&to_server);
    let branch = soon(branch.bind(&gateway)).await.expect("it binds");
    assert_eq!(soon(branch.call::<i64>("add", (20, 22))).await.expect("a sum"), 42);
}

/// A gateway binds its clients by itself: one that has not shown a certificate was bound at once, and stayed.
#[actix::test]
async fn a_client_of_a_gateway_is_bound_after_its_handshake_and_not_before() {
    let ca = Authority::new("ca");
    let mut limits = Limits::default();
    limits.bind_within = Duration::from_secs(1);
    let master = Master::from(MasterActor::new("master").limits(limits).start());
    let gateway = Listen::light_rpc("127.0.0.1:0").tls(&ca.listens_mutually(&ca));
    let gateway = master.listen(gateway).await.expect("it listens");
    let nobody = || async {
        assert!(master.nodes().await.expect("it runs").is_empty());
    };
    // One says nothing, one begins a handshake, one speaks the protocol without TLS, one shows no certificate.
    let mut silent = TcpStream::connect(gateway.as_str()).await.expect("it listens");
    let mut stalled = TcpStream::connect(gateway.as_str()).await.expect("it listens");
    stalled.write_all(b"\x16\x03\x01\x02\x00\x01").await.expect("it is sent");
    let mut plain = TcpStream::connect(gateway.as_str()).await.expect("it listens");
    plain.write_all(b"27\n{\"command\":\"__DESCRIBE\"}").await.expect("it is sent");
    let mut nameless = soon(foreign(&gateway, &ca, None)).await.expect("TLS 1.3 tells it later");
    nobody().await;
    soon(nameless.read_u8()).await.expect_err("it is refused");
    for stream in [&mut silent, &mut stalled, &mut plain] {
        let mut heard = Vec::new();
        soon(stream.read_to_end(&mut heard)).await.expect("it is closed in order");
        assert!(!heard.windows(3).any(|word| word == b"add"), "{heard:?}");
    }
    nobody().await;
}

/// The handshake is work of the session: a listener never waits for one.
#[actix::test]
async fn handshakes_that_stall_keep_nobody_out_and_end_with_the_bind_deadline() {
    let ca = Authority::new("ca");
    let (_master, address) = listening(MasterActor::new("master"), &ca.listens()).await;
    let mut stalled = Vec::new();
    for said in [&b""[..], b"\x16", b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"].repeat(50) {
        let mut stream = TcpStream::connect(address.as_str()).await.expect("it listens");
        stream.write_all(said).await.expect("it is sent");
        stalled.push(stream);
    }
    let branch = soon(adder("adder").tls(&ca.dials()).bind(&address)).await.expect("it binds beside them");
    for mut stream in stalled {
        // Whatever the last words are, the connection ends.
        let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    }
    assert_eq!(soon(branch.call::<i64>("add", (1, 2))).await.expect("it stays"), 3);
}

/// Else a peer that has shown nothing might have 64 KiB kept for it, on each of its connections.
#[actix::test]
async fn a_handshake_that_is_too_long_is_refused_before_its_deadline() {
    let ca = Authority::new("ca");
    let mut limits = Limits::default();
    limits.bind_within = Duration::from_secs(600);
    let (_master, address) = listening(MasterActor::new("master").limits(limits), &ca.listens()).await;
    let mut stream = TcpStream::connect(address.as_str()).await.expect("it listens");
    // A ClientHello of 65,000 bytes, in records of 4,000.
    let mut said = b"\x16\x03\x01\x0f\xa0\x01\x00\xfd\xe8".to_vec();
    said.resize(4_005, 0);
    let mut record = b"\x16\x03\x01\x0f\xa0".to_vec();
    record.resize(4_005, 0);
    for _ in 0..TLS_HANDSHAKE_LEN_MAX / 4_000 + 2 {
        stream.write_all(&said).await.expect("it is not refused before");
        said.clone_from(&record);
    }
    soon(stream.read_to_end(&mut Vec::new())).await.expect("it is closed in order");
}

/// The other way round: a listener that takes connections and says nothing is told from one that nobody answers at.
#[actix::test]
async fn a_dial_whose_handshake_hangs_ends_and_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
    let address = listener.local_addr().expect("it has one").into();
    let ca = Authority::new("ca");
    let error = refused(BranchActor::new("one").tls(&ca.dials()), &address).await;
    assert!(matches!(error, BindError::Unreachable { .. }), "{error}");
    let within = format!("the TLS handshake took longer than {TLS_HANDSHAKE_WITHIN:?}");
    assert!(error.to_string().contains(&within), "{error}");
}

#[test]
fn files_that_are_wrong_are_named_with_what_would_be_right() {
    let (ca, signed) = (Authority::new("ca"), Authority::new("other").sign(&["one"]));
    let good = ca.sign(&["one"]);
    let files = Files::new(&ca, &good);
    files.put("other.key", &signed.key);
    files.put("expired.pem", &ca.expired(&["one"]).certificate);
    let later = ca.sign_as(&["one"], |params| params.not_before = date_time_ymd(2090, 1, 1));
    files.put("later.pem", &later.certificate);
    files.put("broken.pem", "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n");
    files.put(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    files.put("long.pem", &"x".repeat(meshwork::limits::TLS_FILE_LEN_MAX + 1));
    let client_only = ca.sign_as(&["one"], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = date_time_ymd(2021, 1, 1);
        params.not_before = date_time_ymd(2020, 1, 1);
    });
    files.put("client.pem", &client_only.certificate);
    for (certificate, key, ca, said) in [
        ("missing.pem", "own.key", "ca.pem", "missing.pem cannot be read: "),
        ("own.pem", "missing.key", "ca.pem", "; name a file with a private key in PEM"),
        (
            "own.key",
            "own.key",
            "ca.pem",
            "own.key holds no certificate: there is no `-----BEGIN CERTIFICATE-----`",
        ),
        (
            "own.pem",
            "own.pem",
            "ca.pem",
            "own.pem holds no private key: there is no `-----BEGIN PRIVATE KEY-----`",
        ),
        ("broken.pem", "own.key", "ca.pem", "broken.pem holds no certificate: "),
        ("own.pem", "other.key", "ca.pem", "does not belong to the first certificate in "),
        ("own.pem", "locked.key", "ca.pem", "it is encrypted with a passphrase"),
        ("expired.pem", "own.key", "ca.pem", "expired.pem has expired: name one that is valid now"),
        ("client.pem", "own.key", "ca.pem", "client.pem has expired: name one that is valid now"),
        ("later.pem", "own.key", "ca.pem", "later.pem is not valid yet"),
        ("long.pem", "own.key", "ca.pem", "it has more than 1048576 bytes"),
        ("own.pem", "own.key", "own.key", "own.key holds no certificate of a CA: "),
        ("own.pem", "own.key", "missing.pem", "missing.pem cannot be read: "),
    ] {
        let [certificate, key, ca] = [certificate, key, ca].map(|file| files.path(file));
        let listens = ListenTls::mutual(&*certificate, &*key, &*ca).expect_err("it is wrong").to_string();
        assert!(listens.contains(said), "{listens}");
        let dials = DialTls::mutual(ca, certificate, key).expect_err("it is wrong").to_string();
        assert!(dials.contains(said), "{dials}");
    }
    let shown =
        format!("{:?}", ListenTls::new(text(&good.certificate), text(&good.key)).expect("they are good"));
    assert!(!shown.contains("PRIVATE"), "a key is in no log: {shown}");
}

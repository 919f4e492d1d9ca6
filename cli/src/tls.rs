//! The flags of TLS, and the certificates that a command reads again at SIGHUP.

use crate::failure::{Done, Failure};
use crate::signals::Reload;
use clap::Args;
use meshwork::link::Transport;
use meshwork::{Address, DialTls, ListenTls, TlsError, TlsFault};
use std::path::PathBuf;
use std::sync::Arc;

/// The flags of a command that dials the mesh.
#[derive(Args)]
pub(super) struct DialFlags {
    /// A file with the CA of the mesh, in PEM. With it the command speaks TLS to the master, and checks that the certificate of the master
    /// is for the host of its address. An address that begins with tcp:// is spoken to without TLS, one with tls:// only with TLS.
    #[arg(long, value_name = "FILE", env = "MESHWORK_CA")]
    ca: Option<PathBuf>,
    /// A file with the certificate that this command shows a master that demands one, in PEM.
    #[arg(long, value_name = "FILE", env = "MESHWORK_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// A file with the key of the certificate, in PEM.
    #[arg(long, value_name = "FILE", env = "MESHWORK_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// The name that the certificate of the master must be for. Default: the host of its address.
    #[arg(long, value_name = "NAME", env = "MESHWORK_TLS_NAME")]
    tls_name: Option<String>,
}

/// The flags of a bridge for the server that it dials. A bridge dials two ends, and they need not have one CA.
#[derive(Args)]
pub(super) struct ServerFlags {
    /// A file with the CA of the server, in PEM. With it the bridge speaks TLS to the server; --ca is for the master.
    #[arg(long, value_name = "FILE", env = "MESHWORK_SERVER_CA")]
    server_ca: Option<PathBuf>,
    /// A file with the certificate that the bridge shows a server that demands one, in PEM; --tls-cert is for the master.
    #[arg(long, value_name = "FILE", env = "MESHWORK_SERVER_TLS_CERT")]
    server_tls_cert: Option<PathBuf>,
    /// A file with the key of that certificate, in PEM.
    #[arg(long, value_name = "FILE", env = "MESHWORK_SERVER_TLS_KEY")]
    server_tls_key: Option<PathBuf>,
    /// The name that the certificate of the server must be for. Default: the host of its address.
    #[arg(long, value_name = "NAME", env = "MESHWORK_SERVER_TLS_NAME")]
    server_tls_name: Option<String>,
}

/// The flags of a command that listens.
#[derive(Args)]
pub(super) struct ListenFlags {
    /// A file with the certificate of the master, in PEM, followed by those between it and its CA. With it all addresses that are listened on
    /// take TLS only, except those that begin with tcp://.
    #[arg(long, value_name = "FILE", env = "MESHWORK_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// A file with the key of the certificate, in PEM. Only the user of the master should be able to read it.
    #[arg(long, value_name = "FILE", env = "MESHWORK_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// A file with the CA that signs the certificates of branches and other clients, in PEM. With it, a client that shows no such certificate
    /// is refused.
    #[arg(long, value_name = "FILE", env = "MESHWORK_TLS_CLIENT_CA")]
    tls_client_ca: Option<PathBuf>,
}

impl DialFlags {
    /// The TLS for a dial of this address; none if the address is spoken to without TLS.
    pub(super) fn read(&self, address: &str) -> Result<Option<DialTls>, Failure> {
        let flags = ["--ca", "--tls-cert", "--tls-key", "--tls-name"];
        read_dial(address, flags, (&self.ca, &self.tls_cert, &self.tls_key, &self.tls_name))
    }
}

impl ServerFlags {
    /// As [`DialFlags::read`].
    pub(super) fn read(&self, address: &str) -> Result<Option<DialTls>, Failure> {
        let Self { server_ca, server_tls_cert, server_tls_key, server_tls_name } = self;
        let flags = ["--server-ca", "--server-tls-cert", "--server-tls-key", "--server-tls-name"];
        read_dial(address, flags, (server_ca, server_tls_cert, server_tls_key, server_tls_name))
    }
}

type Given<'a> = (&'a Option<PathBuf>, &'a Option<PathBuf>, &'a Option<PathBuf>, &'a Option<String>);

fn read_dial(
    address: &str,
    [ca_flag, cert_flag, key_flag, name_flag]: [&str; 4],
    (ca, cert, key, name): Given<'_>,
) -> Result<Option<DialTls>, Failure> {
    if Address::from(address).transport() == Transport::Plain {
        return Ok(None);
    }
    let Some(ca) = ca else {
        let alone = [(cert_flag, cert.is_some()), (key_flag, key.is_some()), (name_flag, name.is_some())];
        return match alone.into_iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) => Err(Failure::Use(format!(
                "{flag} is for TLS, and no CA is named: name the one that the other end is checked against with {ca_flag}"
            ))),
            None => Ok(None),
        };
    };
    let tls = match (cert, key) {
        (None, None) => DialTls::new(ca.clone()),
        (Some(cert), Some(key)) => DialTls::mutual(ca.clone(), cert.clone(), key.clone()),
        _ => return Err(half(cert_flag, key_flag)),
    };
    let tls = tls.map_err(unusable)?;
    Ok(Some(match name {
        Some(name) => tls.name(name.as_str()),
        None => tls,
    }))
}

impl ListenFlags {
    /// These flags; where one is not given, the file of the configuration: a certificate and its key, which belong together, and the CA of the
    /// clients.
    pub(super) fn or(self, [cert, key, client_ca]: [Option<PathBuf>; 3]) -> Self {
        let (tls_cert, tls_key) = match (self.tls_cert, self.tls_key) {
            (None, None) => (cert, key),
            of_flags => of_flags,
        };
        Self { tls_cert, tls_key, tls_client_ca: self.tls_client_ca.or(client_ca) }
    }

    /// The TLS of the addresses that are listened on; none if they take plain TCP.
    pub(super) fn read(&self) -> Result<Option<ListenTls>, Failure> {
        let tls = match (&self.tls_cert, &self.tls_key, &self.tls_client_ca) {
            (None, None, None) => return Ok(None),
            (Some(cert), Some(key), None) => ListenTls::new(cert.clone(), key.clone()),
            (Some(cert), Some(key), Some(ca)) => ListenTls::mutual(cert.clone(), key.clone(), ca.clone()),
            (None, None, Some(_)) => {
                return Err(Failure::Use(
                    "--tls-client-ca is for TLS: name the certificate of the master with --tls-cert, and its key with --tls-key"
                        .to_owned(),
                ));
            }
            _ => return Err(half("--tls-cert", "--tls-key")),
        };
        tls.map(Some).map_err(unusable)
    }
}

fn half(cert_flag: &str, key_flag: &str) -> Failure {
    Failure::Use(format!("{cert_flag} and {key_flag} belong together: name both the certificate and its key"))
}

fn unusable(error: TlsError) -> Failure {
    Failure::Use(error.to_string())
}

/// The end that a command has dialled.
#[derive(Clone, Copy)]
pub(super) enum Dialled {
    Master,
    /// The server of a bridge.
    Server,
}

/// What would be right where a handshake failed, for the end of a message.
pub(super) fn hint(fault: &TlsFault, dialled: Dialled) -> String {
    let (of, of_variable) = match dialled {
        Dialled::Master => ("", ""),
        Dialled::Server => ("server-", "SERVER_"),
    };
    let ca = format!("--{of}ca or MESHWORK_{of_variable}CA");
    match fault {
        TlsFault::NoCa => format!("; name it with {ca}"),
        TlsFault::UnknownCa => format!("; name the CA of the other end with {ca}"),
        TlsFault::WrongName { .. } => {
            format!("; dial one of these names, or say with --{of}tls-name which one it must be for")
        }
        TlsFault::NotSpoken(_) => format!("; leave {ca} away, or write tcp:// in front of the address"),
        TlsFault::Demanded | TlsFault::Refused(_) => {
            format!(
                "; show one with --{of}tls-cert and --{of}tls-key that the CA of the other end has signed"
            )
        }
        _ => String::new(),
    }
}

/// Certificates that are read again.
#[derive(Clone)]
pub(super) enum Reloaded {
    Dial(DialTls),
    Listen(ListenTls),
}

/// Reads certificates again whenever the process gets SIGHUP. A process without certificates ends at SIGHUP, as is usual.
pub(super) fn reload_at_hangup(reloaded: Vec<Reloaded>) -> Done {
    let mut reload = Reload::default();
    add_to(&mut reload, reloaded);
    reload.start()
}

/// Adds certificates to what is read again at SIGHUP. The new ones count for the next connection: links that stand stay.
pub(super) fn add_to(reload: &mut Reload, reloaded: Vec<Reloaded>) {
    if reloaded.is_empty() {
        return;
    }
    let reloaded: Arc<[_]> = reloaded.into();
    reload.add("the certificates", move || {
        let reloaded = Arc::clone(&reloaded);
        async move {
            // A disk that hangs holds up no call.
            let done = tokio::task::spawn_blocking(move || reloaded.iter().try_for_each(Reloaded::reload));
            done.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        }
    });
}

impl Reloaded {
    fn reload(&self) -> Result<(), TlsError> {
        match self {
            Reloaded::Dial(tls) => tls.reload(),
            Reloaded::Listen(tls) => tls.reload(),
        }
    }
}

//! Any text as a file of identities, an address, or a bound: it is taken, or refused with a line and a reason, and nothing panics.

use meshwork_actors::link::Address;
use meshwork_actors::master::Identities;

/// Reads the text as each of what operators write.
pub(crate) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = Identities::from_toml(&text) {
        let told = error.to_string();
        assert!(!told.is_empty() && told.len() < 16 * 1024, "{told}");
    }
    let address = Address::from(&*text);
    let _ = (address.check(), address.transport(), address.is_loopback());
}

//! The identities of a mesh, as their file says: who shows which token or certificate, which names belong to whom, and who may do what. It
//! decides, and knows no actor and no clock; the file is read by whoever has it.

use super::file_error::FileError;
use super::permissions::{Identity, Permissions, Verb};
use crate::hashed::HashMap;
use crate::link::Certificate;
use meshwork_wire::{ByteString, NameError, Pattern, PatternError, check_topic};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use toml::Spanned;

/// The identities of a mesh: who binds with which token or certificate, under which names, and what it may do. Where a master has identities,
/// nothing is permitted that they do not permit.
///
/// They are read from TOML:
///
/// ```
/// # use meshwork_actors::master::Identities;
/// let identities = Identities::from_toml(
///     r#"
///     [roles.service]
///     call = ["log/write"]
///     describe = ["**"]
///
///     [identities.orders]
///     tokens = ["sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"]
///     roles = ["service"]
///     offer = ["orders/**"]
///     publish = ["orders/**"]
///
///     [anonymous]
///     bind = ["*"]
///     call = ["public/**"]
///     "#,
/// )?;
/// # Ok::<(), meshwork_actors::master::FileError>(())
/// ```
///
/// An identity binds under its own name and every name below it, and under the names of its `bind`. A name belongs to the identities that
/// have it in `bind` without a wildcard, or whose own name it is; else to the identity that it stands below. Nobody else binds under it,
/// whatever wildcards permit. `[anonymous]` is the identity of branches that show neither token nor certificate, and of programs whose
/// protocol has no authentication; without it, the former are refused.
#[derive(Debug)]
pub struct Identities {
    by_name: HashMap<ByteString, Arc<Identity>>,
    /// The digests of tokens are found by a hash, so a wrong token costs the same however many identities there are.
    by_digest: HashMap<[u8; 32], Arc<Identity>>,
    by_certificate: HashMap<ByteString, Arc<Identity>>,
    anonymous: Option<Arc<Identity>>,
    /// The names that identities have in `bind` without a wildcard, with the names of these identities.
    owners: HashMap<ByteString, Vec<ByteString>>,
}

/// The name of the identity of those who show nothing.
pub(crate) const ANONYMOUS: &str = "anonymous";

/// What a branch showed, as far as identities are found by it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Shown {
    /// The digest of its token.
    digest: Option<[u8; 32]>,
    /// The names in its certificate.
    certificate: Option<Vec<ByteString>>,
    /// The identity that its gateway gives all its clients.
    pub(crate) gateway: Option<ByteString>,
}

impl Shown {
    /// What a branch shows in its bind, and its link.
    pub(crate) fn by_branch(credentials: Option<&str>, certificate: Option<&Certificate>) -> Self {
        let digest = credentials.map(digest);
        Self { digest, certificate: certificate.map(|shown| shown.names.clone()), gateway: None }
    }

    /// What a gateway shows for a client: the identity that it gives all its clients, and the certificate of this one.
    pub(crate) fn by_gateway(identity: &ByteString, certificate: Option<&Certificate>) -> Self {
        Self { gateway: Some(identity.clone()), ..Self::by_branch(None, certificate) }
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// A token as the file of the [`Identities`] has it: `sha256:` and the digest of the token in hexadecimal digits. The digest of a token that is
/// long and random, as `meshwork token` makes it, does not give the token away; that of a word would.
#[must_use]
pub fn token_digest(token: &str) -> String {
    digest(token).iter().fold(String::from(DIGEST_PREFIX), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

const DIGEST_PREFIX: &str = "sha256:";

impl Identities {
    /// Reads identities from TOML.
    ///
    /// # Errors
    ///
    /// When the text is no TOML, has a key that there is not, a pattern that is none, a role that is not there, a digest that is none, or one
    /// token or certificate for two identities. The error says the line and what would be right.
    pub fn from_toml(text: &str) -> Result<Self, FileError> {
        let file: File = toml::from_str(text).map_err(|error| FileError::of_toml(text, &error))?;
        Reading { text, roles: file.roles }.identities(file.identities, file.anonymous)
    }

    /// The identity of what was shown, or the reason why there is none.
    pub(crate) fn find(&self, shown: &Shown) -> Result<Arc<Identity>, &'static str> {
        let Shown { digest, certificate, gateway } = shown;
        if let Some(gateway) = gateway {
            if let Some(identity) = self.find_by_names(certificate.as_deref().unwrap_or_default())? {
                return Ok(Arc::clone(identity));
            }
            let found =
                if **gateway == *ANONYMOUS { self.anonymous.as_ref() } else { self.by_name.get(gateway) };
            return found.cloned().ok_or("the identity of this gateway is not there");
        }
        let by_certificate = match certificate {
            Some(names) => Some(self.find_by_names(names)?),
            None => None,
        };
        if let Some(digest) = digest {
            let found = self.by_digest.get_key_value(digest);
            // Which digests are near to one that is there cannot be learnt from the time.
            let is_it = found.is_some_and(|(there, _)| bool::from(there.ct_eq(digest)));
            let identity =
                found.filter(|_| is_it).map(|(_, identity)| identity).ok_or("the token is wrong")?;
            if by_certificate.flatten().is_some_and(|other| other.name != identity.name) {
                return Err("the certificate is that of another identity than the token");
            }
            return Ok(Arc::clone(identity));
        }
        match (by_certificate, &self.anonymous) {
            (Some(Some(identity)), _) | (_, Some(identity)) => Ok(Arc::clone(identity)),
            (Some(None), None) => Err("the certificate is of no identity, and the branch shows no token"),
            (None, None) => Err("a token is needed, and the branch shows none"),
        }
    }

    /// The identity that the names of a certificate are of; none if they are of none.
    fn find_by_names(&self, names: &[ByteString]) -> Result<Option<&Arc<Identity>>, &'static str> {
        let mut found = names.iter().filter_map(|name| self.by_certificate.get(name));
        let first = found.next();
        if found.any(|other| first.is_some_and(|first| first.name != other.name)) {
            return Err("the certificate has the names of two identities");
        }
        Ok(first)
    }

    /// Whether branches of an identity may bind under this name. For a client of a gateway, whose name the gateway has chosen, the name must
    /// only belong to nobody else.
    pub(crate) fn check_name(&self, identity: &Identity, name: &str, of_gateway: bool) -> Result<(), String> {
        if self.belongs_to_another(&identity.name, name) {
            return Err(format!("the name {name:?} belongs to another identity: take another name"));
        }
        if of_gateway || identity.permissions.allows(Verb::Bind, name) {
            return Ok(());
        }
        Err(identity.permissions.reason(Verb::Bind, name))
    }

    fn belongs_to_another(&self, identity: &ByteString, name: &str) -> bool {
        let own = self.by_name.get(name).map(|own| &own.name);
        let listed = self.owners.get(name).into_iter().flatten();
        let mut owners = own.into_iter().chain(listed).peekable();
        if owners.peek().is_some() {
            return !owners.any(|owner| owner == identity);
        }
        // The longest name that it stands below decides.
        let mut above = name.rmatch_indices('/').map(|(at, _)| &name[..at]);
        above.find_map(|above| self.by_name.get(above)).is_some_and(|owner| owner.name != *identity)
    }
}

impl PartialEq for Identities {
    fn eq(&self, other: &Self) -> bool {
        let Self { by_name, by_digest, by_certificate, anonymous, owners } = self;
        *by_name == other.by_name
            && *by_digest == other.by_digest
            && *by_certificate == other.by_certificate
            && *anonymous == other.anonymous
            && *owners == other.owners
    }
}

/// The file, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    roles: BTreeMap<Spanned<String>, Role>,
    #[serde(default)]
    identities: BTreeMap<Spanned<String>, Entry>,
    anonymous: Option<Anonymous>,
}

type Texts = Vec<Spanned<String>>;

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Role {
    bind: Texts,
    offer: Texts,
    call: Texts,
    publish: Texts,
    subscribe: Texts,
    describe: Texts,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Entry {
    tokens: Digests,
    certificates: Texts,
    roles: Texts,
    bind: Texts,
    offer: Texts,
    call: Texts,
    publish: Texts,
    subscribe: Texts,
    describe: Texts,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Anonymous {
    roles: Texts,
    bind: Texts,
    offer: Texts,
    call: Texts,
    publish: Texts,
    subscribe: Texts,
    describe: Texts,
}

/// The lists of one table by verb, in the order of [`Verb::ALL`].
type Lists = [Texts; Verb::ALL.len()];

/// The digests of an identity: a list. One that is no list may be a token that somebody has pasted, so no error quotes it, as that of serde
/// would.
#[derive(Default)]
struct Digests(Texts);

impl<'de> Deserialize<'de> for Digests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfDigests;

        impl<'de> Visitor<'de> for OfDigests {
            type Value = Digests;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of digests")
            }

            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Digests, E> {
                Err(E::custom(
                    "tokens is a list, as in tokens = [\"sha256:...\"]: `meshwork token` writes the line",
                ))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Digests, A::Error> {
                let mut digests = Vec::new();
                while let Some(text) = texts.next_element()? {
                    digests.push(text);
                }
                Ok(Digests(digests))
            }
        }

        deserializer.deserialize_any(OfDigests)
    }
}

/// A file that is being read: its text, for the lines of mistakes, and its roles.
struct Reading<'a> {
    text: &'a str,
    roles: BTreeMap<Spanned<String>, Role>,
}

impl Reading<'_> {
    fn identities(
        self,
        entries: BTreeMap<Spanned<String>, Entry>,
        anonymous: Option<Anonymous>,
    ) -> Result<Identities, FileError> {
        let mut read = Identities {
            by_name: HashMap::default(),
            by_digest: HashMap::default(),
            by_certificate: HashMap::default(),
            anonymous: None,
            owners: HashMap::default(),
        };
        let mut roles = HashMap::default();
        for (name, Role { bind, offer, call, publish, subscribe, describe }) in &self.roles {
            let lists = [bind, offer, call, publish, subscribe, describe];
            roles.insert(name.get_ref().as_str(), self.patterns(lists)?);
        }
        // In the order of the file: the later of two is the mistake.
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_unstable_by_key(|(name, _)| name.span().start);
        for (spanned, entry) in entries {
            let name = ByteString::from(spanned.get_ref().as_str());
            let wrong = |why: String| self.error(&spanned, why);
            check_topic(&name).map_err(|error| wrong(format!("an identity cannot be named so: {error}")))?;
            if name == *ANONYMOUS {
                let why =
                    "those who show nothing are the table [anonymous], which is no identity among others";
                return Err(wrong(why.to_owned()));
            }
            let Entry { tokens, certificates, roles: of, bind, offer, call, publish, subscribe, describe } =
                entry;
            let lists = self.granted(&roles, &of, [bind, offer, call, publish, subscribe, describe])?;
            for pattern in lists[Verb::Bind as usize].iter().filter(|pattern| pattern.is_literal()) {
                read.owners.entry(pattern.name().clone()).or_default().push(name.clone());
            }
            let mut permissions = permissions(lists);
            permissions
                .bind
                .get_or_insert_default()
                .extend(own_names(&name).map_err(|error| wrong(error.to_string()))?);
            let identity = Arc::new(Identity { name: name.clone(), permissions });
            for token in &tokens.0 {
                let digest = self.digest(token)?;
                if let Some(other) = read.by_digest.insert(digest, Arc::clone(&identity)) {
                    let why =
                        format!("this is the token of {:?} too: each token is of one identity", other.name);
                    return Err(self.error(token, why));
                }
            }
            for certificate in &certificates {
                let named = ByteString::from(certificate.get_ref().as_str());
                if named.is_empty() {
                    return Err(self.error(certificate, "a certificate has a name, as in \"orders.example\""));
                }
                if let Some(other) = read.by_certificate.insert(named, Arc::clone(&identity)) {
                    let why = format!(
                        "{certificate:?} is the certificate of {:?} too",
                        other.name,
                        certificate = certificate.get_ref()
                    );
                    return Err(self.error(certificate, why));
                }
            }
            read.by_name.insert(name, identity);
        }
        if let Some(Anonymous { roles: of, bind, offer, call, publish, subscribe, describe }) = anonymous {
            let lists = self.granted(&roles, &of, [bind, offer, call, publish, subscribe, describe])?;
            for pattern in lists[Verb::Bind as usize].iter().filter(|pattern| pattern.is_literal()) {
                read.owners.entry(pattern.name().clone()).or_default().push(ANONYMOUS.into());
            }
            let name = ByteString::from_static(ANONYMOUS);
            read.anonymous = Some(Arc::new(Identity { name, permissions: permissions(lists) }));
        }
        Ok(read)
    }

    /// The patterns of an identity: those of its roles, and its own.
    fn granted(
        &self,
        roles: &HashMap<&str, [Vec<Pattern>; 6]>,
        of: &[Spanned<String>],
        own: Lists,
    ) -> Result<[Vec<Pattern>; 6], FileError> {
        let mut granted = self.patterns(own.each_ref())?;
        for role in of {
            let Some(lists) = roles.get(role.get_ref().as_str()) else {
                let mut there_are: Vec<_> = roles.keys().copied().collect();
                there_are.sort_unstable();
                let there_are = if there_are.is_empty() { "none".to_owned() } else { there_are.join(", ") };
                return Err(
                    self.error(role, format!("there is no role {:?}: there are {there_are}", role.get_ref()))
                );
            };
            for (granted, list) in granted.iter_mut().zip(lists) {
                granted.extend(list.iter().cloned());
            }
        }
        for list in &mut granted {
            list.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
            list.dedup();
        }
        Ok(granted)
    }

    fn patterns(&self, lists: [&Texts; 6]) -> Result<[Vec<Pattern>; 6], FileError> {
        let mut read = [const { Vec::new() }; 6];
        for (read, list) in read.iter_mut().zip(lists) {
            for text in list {
                let pattern = Pattern::new(text.get_ref().as_str());
                read.push(pattern.map_err(|error| self.error(text, error.to_string()))?);
            }
        }
        Ok(read)
    }

    fn digest(&self, token: &Spanned<String>) -> Result<[u8; 32], FileError> {
        let read = token.get_ref().strip_prefix(DIGEST_PREFIX).and_then(|digits| {
            let mut digest = [0; 32];
            if digits.len() != 2 * digest.len() {
                return None;
            }
            for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
                let pair = digits.get(at..at + 2)?;
                // `from_str_radix` takes a sign.
                *byte = u8::from_str_radix(pair, 16)
                    .ok()
                    .filter(|_| pair.bytes().all(|c| c.is_ascii_hexdigit()))?;
            }
            Some(digest)
        });
        // The text is not shown: it may be the token itself.
        read.ok_or_else(|| {
            let right = "a token stands here as its digest, sha256: and 64 hexadecimal digits; `meshwork token` makes both";
            self.error(token, right)
        })
    }

    fn error(&self, at: &Spanned<String>, why: impl Into<String>) -> FileError {
        FileError::at(self.text, at.span().start, why)
    }
}

/// The names that belong to an identity: its own, and those below.
fn own_names(name: &ByteString) -> Result<[Pattern; 2], PatternError> {
    let below = Pattern::new(format!("{name}/**"));
    // A name that is as long as one may be has none below it.
    let below = match below {
        Err(PatternError::Name(NameError::TooLong(_) | NameError::TooManySegments(_))) => {
            Pattern::new(name.clone())
        }
        below => below,
    };
    Ok([Pattern::new(name.clone())?, below?])
}

fn permissions([bind, offer, call, publish, subscribe, describe]: [Vec<Pattern>; 6]) -> Permissions {
    Permissions {
        bind: Some(bind),
        offer: Some(offer),
        call: Some(call),
        publish: Some(publish),
        subscribe: Some(subscribe),
        describe: Some(describe),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(more: &str) -> String {
        let (orders, stock) = (token_digest("of orders"), token_digest("of stock"));
        format!(
            r#"
[roles.service]
call = ["log/*"]
describe = ["**"]

[roles.guest]
bind = ["*"]

[identities.orders]
tokens = ["{orders}"]
certificates = ["orders.example"]
roles = ["service"]
offer = ["orders/**"]

[identities.stock]
tokens = ["{stock}"]
bind = ["*", "warehouse"]
{more}"#
        )
    }

    fn read(more: &str) -> Identities {
        Identities::from_toml(&file(more)).expect("it is right")
    }

    fn who(
        identities: &Identities,
        token: Option<&str>,
        certificate: Option<&'static str>,
    ) -> Result<String, &'static str> {
        let certificate = certificate.map(|name| Certificate::of([ByteString::from_static(name)]));
        let found = identities.find(&Shown::by_branch(token, certificate.as_ref()))?;
        Ok(found.name().to_string())
    }

    #[test]
    fn an_identity_is_found_by_its_token_or_its_certificate() {
        let identities = read("");
        assert_eq!(who(&identities, Some("of orders"), None).as_deref(), Ok("orders"));
        assert_eq!(who(&identities, Some("of stock"), None).as_deref(), Ok("stock"));
        assert_eq!(who(&identities, None, Some("orders.example")).as_deref(), Ok("orders"));
        assert_eq!(who(&identities, Some("of orders"), Some("orders.example")).as_deref(), Ok("orders"));
        for (token, certificate, why) in [
            (Some("guess"), None, "the token is wrong"),
            (Some(""), None, "the token is wrong"),
            (Some("guess"), Some("orders.example"), "the token is wrong"),
            (None, None, "a token is needed, and the branch shows none"),
            (None, Some("other"), "the certificate is of no identity, and the branch shows no token"),
            (
                Some("of stock"),
                Some("orders.example"),
                "the certificate is that of another identity than the token",
            ),
        ] {
            assert_eq!(who(&identities, token, certificate), Err(why));
        }
    }

    #[test]
    fn who_shows_nothing_is_anonymous_and_who_shows_a_wrong_token_is_not() {
        let identities = read("[anonymous]\nroles = [\"guest\"]\ncall = [\"public/**\"]\n");
        assert_eq!(who(&identities, None, None).as_deref(), Ok("anonymous"));
        assert_eq!(who(&identities, None, Some("unknown")).as_deref(), Ok("anonymous"));
        assert!(who(&identities, Some("guess"), None).is_err());
        let anonymous = identities.find(&Shown::default()).unwrap();
        assert!(anonymous.permissions.allows(Verb::Call, "public/a"));
        assert!(!anonymous.permissions.allows(Verb::Call, "log/write"));
    }

    #[test]
    fn a_gateway_has_the_identity_that_it_was_given() {
        let identities = read("[identities.legacy]\ncall = [\"old/**\"]\n");
        let of = |name: &'static str| identities.find(&Shown::by_gateway(&name.into(), None));
        assert!(of("legacy").unwrap().permissions.allows(Verb::Call, "old/a"));
        assert!(of("anonymous").is_err() && of("none").is_err());
    }

    #[test]
    fn what_a_file_does_not_permit_is_denied() {
        let identities = read("");
        let orders = identities.find(&Shown::by_branch(Some("of orders"), None)).unwrap();
        assert!(orders.permissions.allows(Verb::Offer, "orders/place"));
        assert!(orders.permissions.allows(Verb::Call, "log/write"), "by its role");
        for (verb, name) in [
            (Verb::Offer, "log/write"),
            (Verb::Offer, "**"),
            (Verb::Call, "orders/place"),
            (Verb::Publish, "orders/place"),
            (Verb::Subscribe, "orders/**"),
        ] {
            assert!(!orders.permissions.allows(verb, name), "{verb:?} {name}");
        }
    }

    #[test]
    fn a_name_belongs_to_its_identity() {
        let identities = read("[anonymous]\nbind = [\"**\"]\n[identities.\"orders/eu\"]\n");
        let may = |identity: &Shown, name| {
            let identity = identities.find(identity).expect("it is there");
            identities.check_name(&identity, name, false).is_ok()
        };
        let (orders, stock) =
            (Shown::by_branch(Some("of orders"), None), Shown::by_branch(Some("of stock"), None));
        let (eu, anonymous) = (Shown::by_gateway(&"orders/eu".into(), None), Shown::default());
        for (name, its) in [
            ("orders", &orders),
            ("orders/1", &orders),
            ("stock", &stock),
            ("stock/a/b", &stock),
            ("warehouse", &stock),
            ("orders/eu", &eu),
            ("orders/eu/1", &eu),
            ("warehouse/1", &anonymous),
            ("a/b", &anonymous),
        ] {
            for identity in [&orders, &stock, &eu, &anonymous] {
                assert_eq!(may(identity, name), identity == its, "{name} {identity:?}");
            }
        }
        assert!(may(&stock, "other") && may(&anonymous, "other") && !may(&orders, "other"));
    }

    #[test]
    fn a_client_of_a_gateway_has_any_name_but_that_of_an_identity() {
        let identities = read("[anonymous]\n");
        let anonymous = identities.find(&Shown::by_gateway(&ANONYMOUS.into(), None)).unwrap();
        assert!(identities.check_name(&anonymous, "light_rpc/1.2.3.4:5", true).is_ok());
        assert!(identities.check_name(&anonymous, "orders/1.2.3.4:5", true).is_err());
    }

    #[test]
    fn a_mistake_has_its_line_and_says_what_would_be_right() {
        let orders = token_digest("of orders");
        let lines = file("").lines().count();
        for (more, line, words) in [
            ("[identities.a]\nofer = [\"a\"]", 2, "unknown field `ofer`, expected one of `tokens`"),
            ("[nobody]", 1, "unknown field `nobody`"),
            ("[identities.a]\ncall = [\n\"a\",\n\"a*\"]", 4, "a * must be a whole segment"),
            (
                "[identities.a]\nroles = [\"servce\"]",
                2,
                "there is no role \"servce\": there are guest, service",
            ),
            ("[identities.orders]", 1, "duplicate key"),
            ("[identities.a]\ntokens = [\"secret\"]", 2, "sha256: and 64 hexadecimal digits"),
            ("[identities.a]\ntokens = [\"sha256:secret\"]", 2, "sha256: and 64 hexadecimal digits"),
            ("[identities.a]\ntokens = \"secret\"", 2, "tokens is a list"),
            ("[identities.a]\ntokens = [[\"secret\"]]", 2, "string"),
            ("[identities.a]\ntokens = [7]", 2, "string"),
            (&format!("[identities.a]\ntokens = [\"{orders}\"]"), 2, "the token of \"orders\" too"),
            ("[identities.a]\ncertificates = [\"orders.example\"]", 2, "the certificate of \"orders\" too"),
            ("[identities.a]\ncertificates = [\"\"]", 2, "a certificate has a name"),
            ("[identities.\"a/*\"]", 1, "an identity cannot be named so"),
            ("[identities.anonymous]", 1, "the table [anonymous]"),
            ("[identities.a]\ncall = \"a\"", 2, "invalid type"),
            ("[identities.a]\ncall = [\"a\"", 2, "array"),
            ("[anonymous]\ntokens = []", 2, "unknown field `tokens`"),
        ] {
            let error = Identities::from_toml(&file(more)).expect_err(more);
            assert_eq!(error.line, lines + line, "{more}: {error}");
            assert!(error.why.contains(words), "{more}: {error}");
            assert!(!error.why.contains("secret") && !error.why.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_file_without_a_word_knows_nobody() {
        let identities = Identities::from_toml("").unwrap();
        assert!(identities.find(&Shown::default()).is_err());
        assert!(who(&identities, Some("any"), None).is_err());
    }

    proptest! {
        #[test]
        fn a_file_that_is_cut_or_changed_anywhere_is_read_or_has_a_line(
            at in any::<prop::sample::Index>(), there in any::<bool>(), new in prop_oneof!["[^a]{0,3}", ".*"],
        ) {
            let whole = file("[anonymous]\ncall = [\"größe/*\"]\n");
            let at = at.index(whole.len());
            let at = (0..=at).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
            let changed = format!("{}{new}{}", &whole[..at], if there { &whole[at..] } else { "" });
            if let Err(FileError { line, why }) = Identities::from_toml(&changed) {
                prop_assert!((1..=1 + changed.matches('\n').count()).contains(&line), "{line}: {why}");
                prop_assert!(!why.is_empty());
            }
        }
    }
}

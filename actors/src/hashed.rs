//! Maps and sets by hash. Every map of the actors is one of these: in a simulation the order of a map follows from the seed too, so that a
//! run can be repeated exactly.

pub(crate) use hashbrown::hash_map::{Entry, IntoValues};

/// A map by hash.
pub(crate) type HashMap<K, V> = hashbrown::HashMap<K, V, Hashing>;

/// A set by hash.
pub(crate) type HashSet<T> = hashbrown::HashSet<T, Hashing>;

/// The hash of the maps and sets: fast, and seeded, so that ids and names which a peer chose cannot collide on purpose.
#[cfg(not(feature = "testing"))]
pub(crate) type Hashing = hashbrown::DefaultHashBuilder;

/// The hash of the maps and sets in tests. Its seed comes from the chance of the thread, which a simulation seeds; on any other thread it
/// cannot be foreseen, as outside of tests.
#[cfg(feature = "testing")]
#[derive(Clone)]
pub(crate) struct Hashing(u64);

#[cfg(feature = "testing")]
impl Default for Hashing {
    fn default() -> Self {
        Self(fastrand::u64(..))
    }
}

#[cfg(feature = "testing")]
impl std::hash::BuildHasher for Hashing {
    type Hasher = std::hash::DefaultHasher;

    fn build_hasher(&self) -> Self::Hasher {
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hasher::write_u64(&mut hasher, self.0);
        hasher
    }
}

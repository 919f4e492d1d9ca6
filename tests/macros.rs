//! What `#[meshwork::actions]` makes of a trait compiles under strict lints, and what it refuses is told where it stands.
//!
//! The files are in `macros/pass` and `macros/fail`; each of the latter has the errors of the compiler beside it.
//! `TRYBUILD=overwrite cargo test --test macros` writes them anew: read the difference before you keep it.

#[test]
fn a_trait_of_actions_compiles_under_strict_lints() {
    trybuild::TestCases::new().pass("tests/macros/pass/*.rs");
}

#[test]
fn a_wrong_trait_is_refused_where_it_is_wrong() {
    trybuild::TestCases::new().compile_fail("tests/macros/fail/*.rs");
}
